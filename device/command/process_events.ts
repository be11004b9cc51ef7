/** Events of the process as a whole while it serves: signals, and unhandled rejections. */
import { logFailure } from "../guarded_poll_source.ts";
import type { Log } from "../log.ts";

const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** SIGINT, SIGTERM and SIGHUP while it lives: a request to stop, but for those that mean something else. */
export class StopSignals implements Disposable {
  /** Whether one has come. */
  isAsked = false;
  readonly #signals: readonly Deno.Signal[];
  #stop: () => void = () => {};
  readonly #listener = () => {
    this.isAsked = true;
    this.#stop();
  };

  /**
   * Handles the signals from now on.
   *
   * @param others Those of them that are no request to stop, and not handled.
   */
  constructor(others: readonly Deno.Signal[] = []) {
    this.#signals = STOP_SIGNALS.filter((signal) => !others.includes(signal));
    for (const signal of this.#signals) Deno.addSignalListener(signal, this.#listener);
  }

  /** Sets what is called when one comes; calls it at once if one has. */
  onStop(stop: () => void): void {
    this.#stop = stop;
    if (this.isAsked) stop();
  }

  /** Stops: the next signal ends the process. */
  [Symbol.dispose](): void {
    for (const signal of this.#signals) Deno.removeSignalListener(signal, this.#listener);
  }
}

/** Logs unhandled rejections while it lives, so that they do not end the process. */
export class RejectionLog implements Disposable {
  readonly #listener: (event: PromiseRejectionEvent) => void;

  /** Logs from now on. */
  constructor(log: Log) {
    this.#listener = (event) => {
      event.preventDefault();
      logFailure(log, "Something failed that nothing waits for", event.reason);
    };
    addEventListener("unhandledrejection", this.#listener);
  }

  /** Stops: the next one ends the process. */
  [Symbol.dispose](): void {
    removeEventListener("unhandledrejection", this.#listener);
  }
}
