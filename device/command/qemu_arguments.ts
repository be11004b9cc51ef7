/**
 * The QEMU arguments that attach a guest to a served device.
 *
 * @module
 */

/** Arguments for an x86 guest, one line each, with the device in slot 2 as `viot --iommu 00:02.0` says. */
export function qemuArguments(socketPath: string): readonly string[] {
  return [
    `viommu viot --iommu 00:02.0 -o viot.aml`,
    `qemu-system-x86_64 -M q35,memory-backend=mem -m 512 \\`,
    `  -object memory-backend-memfd,id=mem,size=512M,share=on \\`,
    `  -chardev socket,id=viommu,path=${socketPath} \\`,
    `  -device vhost-user-test-device-pci,chardev=viommu,virtio-id=23,num_vqs=2,vq_size=128,config_size=40,addr=2 \\`,
    `  -acpitable file=viot.aml ...`,
  ];
}
