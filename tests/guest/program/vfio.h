/*
 * A PCI device behind an IOMMU, driven from user space through VFIO's type 1 container. For programs in a lab guest that drive
 * one device: a failure ends the program with a line on standard error and status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* The container, and the first device that has joined it. */
static int container, device;

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(errno));
    va_end(arguments);
    exit(1);
}

/* Writes registers at a place that begins with region(). */
static void put(uint64_t at, uint64_t value, int bytes)
{
    if (pwrite(device, &value, bytes, (off_t)at) != bytes)
        die("write of %d bytes at 0x%" PRIx64, bytes, at);
}

static uint64_t get(uint64_t at, int bytes)
{
    uint64_t value = 0;
    if (pread(device, &value, bytes, (off_t)at) != bytes)
        die("read of %d bytes at 0x%" PRIx64, bytes, at);
    return value;
}

/* Where a region of the device begins. */
static uint64_t region(uint32_t index)
{
    struct vfio_region_info info = { .argsz = sizeof info, .index = index };
    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
        die("region %u", index);
    return info.offset;
}

/* Adds the group of a device, which is bound to vfio-pci, to the container; opens the device if it is the first. */
static void join(const char *name)
{
    char path[128], target[256];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        die("%s", path);
    target[length] = 0;
    snprintf(path, sizeof path, "/dev/vfio/%s", strrchr(target, '/') + 1);
    int group = open(path, O_RDWR);
    if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
        die("group of %s", name);
    static int is_set;
    if (!is_set && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
        die("VFIO_SET_IOMMU");
    if (!is_set && (device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name)) < 0)
        die("device %s", name);
    is_set = 1;
}

static void map(uint64_t iova, void *memory, uint64_t bytes, uint32_t flags)
{
    struct vfio_iommu_type1_dma_map request = { sizeof request, flags, (uintptr_t)memory, iova, bytes };
    if (ioctl(container, VFIO_IOMMU_MAP_DMA, &request) < 0)
        die("map at 0x%" PRIx64, iova);
}

static void unmap(uint64_t iova, uint64_t bytes)
{
    struct vfio_iommu_type1_dma_unmap request = { .argsz = sizeof request, .iova = iova, .size = bytes };
    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &request) < 0 || request.size != bytes)
        die("unmap at 0x%" PRIx64, iova);
}

/* New memory, which is there. */
static void *pages(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}
