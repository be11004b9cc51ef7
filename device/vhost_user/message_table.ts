/**
 * The messages that a back end serves: their form, and what serves each.
 *
 * Source: QEMU's docs/interop/vhost-user.rst, "Front-end message types". Sizes are bytes of payload. Messages that are
 * not in the table are refused.
 */
import type { Messages } from "./messages.ts";
import type { MigrationMessages } from "./migration_messages.ts";
import {
  CONFIG_HEADER_BYTES,
  MAX_CONFIG,
  MAX_DESCRIPTORS,
  MAX_PAYLOAD,
  ProtocolFeature,
  Request,
} from "./protocol.ts";
import type { RingMessages } from "./ring_messages.ts";
import type { Refusal } from "./session.ts";

/** What serves the messages of a session. */
export interface MessageHandlers {
  /** Those about the session as a whole. */
  readonly messages: Messages;
  /** Those about one ring. */
  readonly rings: RingMessages;
  /** Those for migration and recovery. */
  readonly migration: MigrationMessages;
}

/** How many bytes and descriptors a message has, how it is answered, and what serves it. */
export interface ServedMessage {
  /** Fewest payload bytes. */
  readonly least: number;
  /** Most payload bytes; as many as fewest unless said. */
  readonly most?: number;
  /** Most descriptors, 0 unless said; a method that needs one asks for it. */
  readonly descriptors?: number;
  /** Whether it has a reply of its own, instead of the one that NEED_REPLY asks for. */
  readonly replies?: true;
  /** The protocol features without which the front end must not send it; any of them will do. None unless said. */
  readonly needs?: number;
  /** Serves it; nothing if it is done, or why it is refused. */
  serve(handlers: MessageHandlers): Refusal;
}

const CONFIG_MOST = CONFIG_HEADER_BYTES + MAX_CONFIG;

const TABLE: Readonly<Record<number, ServedMessage>> = {
  [Request.GET_FEATURES]: {
    least: 0,
    replies: true,
    serve: ({ messages }) => messages.getFeatures(),
  },
  [Request.SET_FEATURES]: { least: 8, serve: ({ messages }) => messages.setFeatures() },
  [Request.SET_OWNER]: { least: 0, serve: ({ messages }) => messages.setOwner() },
  [Request.RESET_OWNER]: { least: 0, serve: ({ messages }) => messages.resetOwner() },
  [Request.SET_MEM_TABLE]: {
    least: 8,
    most: MAX_PAYLOAD,
    descriptors: MAX_DESCRIPTORS,
    serve: ({ messages }) => messages.setMemTable(),
  },
  [Request.SET_LOG_BASE]: {
    least: 16,
    descriptors: 1,
    replies: true,
    needs: ProtocolFeature.LOG_SHMFD,
    serve: ({ migration }) => migration.setLogBase(),
  },
  [Request.SET_LOG_FD]: {
    least: 0,
    most: 8,
    descriptors: 1,
    serve: ({ migration }) => migration.setLogFd(),
  },
  [Request.SET_VRING_NUM]: { least: 8, serve: ({ rings }) => rings.setVringNum() },
  [Request.SET_VRING_ADDR]: { least: 40, serve: ({ rings }) => rings.setVringAddr() },
  [Request.SET_VRING_BASE]: { least: 8, serve: ({ rings }) => rings.setVringBase() },
  [Request.GET_VRING_BASE]: { least: 8, replies: true, serve: ({ rings }) => rings.getVringBase() },
  [Request.SET_VRING_KICK]: {
    least: 8,
    descriptors: 1,
    serve: ({ rings }) => rings.setVringKick(),
  },
  [Request.SET_VRING_CALL]: {
    least: 8,
    descriptors: 1,
    serve: ({ rings }) => rings.setVringCall(),
  },
  [Request.SET_VRING_ERR]: { least: 8, descriptors: 1, serve: ({ rings }) => rings.setVringErr() },
  [Request.GET_PROTOCOL_FEATURES]: {
    least: 0,
    replies: true,
    serve: ({ messages }) => messages.getProtocolFeatures(),
  },
  [Request.SET_PROTOCOL_FEATURES]: {
    least: 8,
    serve: ({ messages }) => messages.setProtocolFeatures(),
  },
  [Request.GET_QUEUE_NUM]: {
    least: 0,
    replies: true,
    serve: ({ messages }) => messages.getQueueNum(),
  },
  [Request.SET_VRING_ENABLE]: { least: 8, serve: ({ rings }) => rings.setVringEnable() },
  [Request.SET_BACKEND_REQ_FD]: {
    least: 0,
    descriptors: 1,
    needs: ProtocolFeature.BACKEND_REQ,
    serve: ({ messages }) => messages.setBackendReqFd(),
  },
  [Request.IOTLB_MSG]: { least: 32, serve: ({ messages }) => messages.iotlbMsg() },
  [Request.GET_CONFIG]: {
    least: CONFIG_HEADER_BYTES,
    most: CONFIG_MOST,
    replies: true,
    needs: ProtocolFeature.CONFIG,
    serve: ({ messages }) => messages.getConfig(),
  },
  [Request.SET_CONFIG]: {
    least: CONFIG_HEADER_BYTES,
    most: CONFIG_MOST,
    needs: ProtocolFeature.CONFIG,
    serve: ({ messages }) => messages.setConfig(),
  },
  [Request.GET_INFLIGHT_FD]: {
    least: 20,
    most: 24,
    replies: true,
    needs: ProtocolFeature.INFLIGHT_SHMFD,
    serve: ({ migration }) => migration.getInflightFd(),
  },
  [Request.SET_INFLIGHT_FD]: {
    least: 20,
    most: 24,
    descriptors: 1,
    needs: ProtocolFeature.INFLIGHT_SHMFD,
    serve: ({ migration }) => migration.setInflightFd(),
  },
  [Request.RESET_DEVICE]: {
    least: 0,
    needs: ProtocolFeature.RESET_DEVICE,
    serve: ({ messages }) => messages.resetDevice(),
  },
  [Request.VRING_KICK]: {
    least: 8,
    needs: ProtocolFeature.INBAND_NOTIFICATIONS,
    serve: ({ rings }) => rings.vringKick(),
  },
  [Request.GET_MAX_MEM_SLOTS]: {
    least: 0,
    replies: true,
    needs: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    serve: ({ messages }) => messages.getMaxMemSlots(),
  },
  [Request.ADD_MEM_REG]: {
    least: 40,
    descriptors: 1,
    needs: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    serve: ({ messages }) => messages.addMemReg(),
  },
  [Request.REM_MEM_REG]: {
    least: 40,
    descriptors: 1,
    needs: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    serve: ({ messages }) => messages.remMemReg(),
  },
  [Request.SET_STATUS]: {
    least: 8,
    needs: ProtocolFeature.STATUS,
    serve: ({ messages }) => messages.setStatus(),
  },
  [Request.GET_STATUS]: {
    least: 0,
    replies: true,
    needs: ProtocolFeature.STATUS,
    serve: ({ messages }) => messages.getStatus(),
  },
  [Request.SET_DEVICE_STATE_FD]: {
    least: 8,
    descriptors: 1,
    replies: true,
    needs: ProtocolFeature.DEVICE_STATE,
    serve: ({ migration }) => migration.setDeviceStateFd(),
  },
  [Request.CHECK_DEVICE_STATE]: {
    least: 0,
    replies: true,
    needs: ProtocolFeature.DEVICE_STATE,
    serve: ({ migration }) => migration.checkDeviceState(),
  },
};

/** How a message is served; `undefined` for one that is not. */
export function servedMessage(request: number): ServedMessage | undefined {
  return TABLE[request];
}
