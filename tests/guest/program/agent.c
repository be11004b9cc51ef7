/*
 * The program that runs in a lab guest: takes one command a line on its standard input (the serial console)
 * and answers with lines that begin with '@'. The last line of an answer is "@ok ..." or "@error ...".
 *
 *   run COMMAND                    runs it in a shell: "@| line" for each line of output, "@ok STATUS"
 *   vfio 0000:BB:DD.F              binds the device to vfio-pci, opens its group with VFIO_TYPE1v2_IOMMU,
 *                                  "@range FIRST LAST" for each usable range of I/O addresses, "@ok GROUP"
 *   map IOVA BYTES PROT BACKING    maps new memory; PROT: r, w, rw; BACKING: one of the below;
 *                                  "@run IOVA PHYS PAGES" for each piece that is contiguous in both, "@ok"
 *   unmap IOVA BYTES               "@ok BYTES", the number that VFIO says it unmapped
 *   bench IOVA BYTES COUNT         maps COUNT pieces of BYTES each, then unmaps each: "@ok MAP_NS UNMAP_NS"
 *                                  (sums over all calls)
 *   close                          closes device, group and container
 *   poweroff, reboot               "@ok", then ends the guest
 *
 * Backings: scattered, pages as they come in an order that scatters them; contiguous, out of a transparent huge
 * page where the guest has one; huge, huge pages of 2 MiB (to be reserved before); one, a single page over and over.
 *
 * Numbers are hexadecimal with 0x, or decimal. PHYS is the guest-physical address from /proc/self/pagemap.
 */
#define _GNU_SOURCE
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
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"

enum { MAX_BUFFERS = 4096 };

struct buffer {
    uint64_t iova;
    uint64_t bytes;
    unsigned char *memory;
};

static int container = -1;
static int group = -1;
static int device = -1;
static struct buffer buffers[MAX_BUFFERS];
static int buffer_count;

static void fail(const char *action, int error)
{
    if (error)
        printf("@error %s: %s\n", action, strerror(error));
    else
        printf("@error %s\n", action);
}

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return written < 0 ? -1 : 0;
}

static void run_command(const char *command)
{
    char line[1024];
    fflush(stdout);
    FILE *output = popen(command, "r");
    if (!output) {
        fail("popen", errno);
        return;
    }
    while (fgets(line, sizeof line, output)) {
        line[strcspn(line, "\n")] = 0;
        printf("@| %s\n", line);
    }
    int status = pclose(output);
    printf("@ok %d\n", status < 0 ? status : status >> 8);
}

static void close_vfio(void)
{
    if (device >= 0)
        close(device);
    if (group >= 0)
        close(group);
    if (container >= 0)
        close(container);
    device = group = container = -1;
    for (int i = 0; i < buffer_count; i++)
        munmap(buffers[i].memory, buffers[i].bytes);
    buffer_count = 0;
}

static int bind_device(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver/unbind", name);
    if (write_text(path, name) < 0 && errno != ENOENT)
        return -1;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver_override", name);
    if (write_text(path, "vfio-pci") < 0)
        return -1;
    return write_text("/sys/bus/pci/drivers_probe", name);
}

/* Group number of the device, or -1 with errno. */
static int group_of(const char *name)
{
    char path[128];
    char target[256];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return -1;
    target[length] = 0;
    const char *slash = strrchr(target, '/');
    return atoi(slash ? slash + 1 : target);
}

static void print_ranges(void)
{
    static union {
        struct vfio_iommu_type1_info info;
        unsigned char bytes[8192];
    } answer;
    answer.info.argsz = sizeof answer;
    if (ioctl(container, VFIO_IOMMU_GET_INFO, &answer.info) < 0)
        return;
    if (!(answer.info.flags & VFIO_IOMMU_INFO_CAPS))
        return;
    uint32_t at = answer.info.cap_offset;
    while (at != 0 && at < sizeof answer) {
        struct vfio_info_cap_header *header = (void *)(answer.bytes + at);
        if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
            struct vfio_iommu_type1_info_cap_iova_range *cap = (void *)header;
            for (uint32_t i = 0; i < cap->nr_iovas; i++)
                printf("@range 0x%" PRIx64 " 0x%" PRIx64 "\n", (uint64_t)cap->iova_ranges[i].start,
                       (uint64_t)cap->iova_ranges[i].end);
        }
        at = header->next;
    }
}

static void open_vfio(const char *name)
{
    char path[64];
    struct vfio_group_status status = { .argsz = sizeof status };
    if (container >= 0) {
        fail("vfio: already open", 0);
        return;
    }
    if (bind_device(name) < 0) {
        fail("bind to vfio-pci", errno);
        return;
    }
    int number = group_of(name);
    if (number < 0) {
        fail("iommu_group", errno);
        return;
    }
    snprintf(path, sizeof path, "/dev/vfio/%d", number);
    container = open("/dev/vfio/vfio", O_RDWR);
    group = open(path, O_RDWR);
    if (container < 0 || group < 0) {
        fail("open VFIO container or group", errno);
    } else if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0) {
        fail("VFIO_GROUP_GET_STATUS", errno);
    } else if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        fail("group is not viable", 0);
    } else if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0) {
        fail("VFIO_GROUP_SET_CONTAINER", errno);
    } else if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) {
        fail("VFIO_SET_IOMMU", errno);
    } else if ((device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name)) < 0) {
        fail("VFIO_GROUP_GET_DEVICE_FD", errno);
    } else {
        print_ranges();
        printf("@ok %d\n", number);
        return;
    }
    close_vfio();
}

static int map_dma(uint64_t iova, uint64_t bytes, const void *memory, uint32_t flags)
{
    struct vfio_iommu_type1_dma_map request = {
        .argsz = sizeof request,
        .flags = flags,
        .vaddr = (uintptr_t)memory,
        .iova = iova,
        .size = bytes,
    };
    return ioctl(container, VFIO_IOMMU_MAP_DMA, &request);
}

/* Bytes unmapped, or -1 with errno. */
static int64_t unmap_dma(uint64_t iova, uint64_t bytes)
{
    struct vfio_iommu_type1_dma_unmap request = {
        .argsz = sizeof request,
        .iova = iova,
        .size = bytes,
    };
    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &request) < 0)
        return -1;
    return (int64_t)request.size;
}

static void map_buffer(uint64_t iova, uint64_t bytes, const char *prot, const char *backing)
{
    uint32_t flags = 0;
    if (strchr(prot, 'r'))
        flags |= VFIO_DMA_MAP_FLAG_READ;
    if (strchr(prot, 'w'))
        flags |= VFIO_DMA_MAP_FLAG_WRITE;
    if (buffer_count == MAX_BUFFERS) {
        fail("map: too many buffers", 0);
        return;
    }
    unsigned char *memory = new_memory(bytes, backing);
    if (!memory) {
        fail("mmap", errno);
        return;
    }
    if (map_dma(iova, bytes, memory, flags) < 0) {
        fail("VFIO_IOMMU_MAP_DMA", errno);
        munmap(memory, bytes);
        return;
    }
    buffers[buffer_count++] = (struct buffer){ iova, bytes, memory };
    if (print_frames(iova, bytes, memory) < 0)
        fail("pagemap", errno);
    else
        printf("@ok\n");
}

static void unmap_buffers(uint64_t iova, uint64_t bytes)
{
    int64_t done = unmap_dma(iova, bytes);
    if (done < 0) {
        fail("VFIO_IOMMU_UNMAP_DMA", errno);
        return;
    }
    for (int i = 0; i < buffer_count;) {
        if (buffers[i].iova >= iova && buffers[i].iova - iova < bytes) {
            munmap(buffers[i].memory, buffers[i].bytes);
            buffers[i] = buffers[--buffer_count];
        } else {
            i++;
        }
    }
    printf("@ok %" PRId64 "\n", done);
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void bench(uint64_t iova, uint64_t bytes, uint64_t count)
{
    unsigned char *memory = new_memory(bytes, "scattered");
    if (!memory) {
        fail("mmap", errno);
        return;
    }
    uint64_t start = nanoseconds();
    for (uint64_t i = 0; i < count; i++) {
        if (map_dma(iova + i * bytes, bytes, memory, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE) < 0) {
            fail("VFIO_IOMMU_MAP_DMA", errno);
            unmap_dma(iova, count * bytes);
            munmap(memory, bytes);
            return;
        }
    }
    uint64_t middle = nanoseconds();
    int64_t lost = 0;
    for (uint64_t i = 0; i < count; i++)
        lost += unmap_dma(iova + i * bytes, bytes) != (int64_t)bytes;
    uint64_t end = nanoseconds();
    munmap(memory, bytes);
    if (lost)
        fail("VFIO_IOMMU_UNMAP_DMA", 0);
    else
        printf("@ok %" PRIu64 " %" PRIu64 "\n", middle - start, end - middle);
}

static void end_guest(int how)
{
    close_vfio();
    printf("@ok\n");
    fflush(stdout);
    sync();
    /* Unmappings that the kernel has put off (by 10 ms) come before the end: at the end it breaks the queues of
     * the IOMMU, whose driver then waits for answers that never come. */
    usleep(100000);
    reboot(how);
}

static void obey(const char *line)
{
    char name[64], prot[8], backing[16];
    uint64_t iova, bytes, count;
    if (strncmp(line, "run ", 4) == 0)
        run_command(line + 4);
    else if (sscanf(line, "vfio %63s", name) == 1)
        open_vfio(name);
    else if (sscanf(line, "map %" SCNi64 " %" SCNi64 " %7s %15s", (int64_t *)&iova, (int64_t *)&bytes, prot,
                    backing) == 4)
        map_buffer(iova, bytes, prot, backing);
    else if (sscanf(line, "unmap %" SCNi64 " %" SCNi64, (int64_t *)&iova, (int64_t *)&bytes) == 2)
        unmap_buffers(iova, bytes);
    else if (sscanf(line, "bench %" SCNi64 " %" SCNi64 " %" SCNi64, (int64_t *)&iova, (int64_t *)&bytes,
                    (int64_t *)&count) == 3)
        bench(iova, bytes, count);
    else if (strcmp(line, "close") == 0) {
        close_vfio();
        printf("@ok\n");
    } else if (strcmp(line, "poweroff") == 0)
        end_guest(RB_POWER_OFF);
    else if (strcmp(line, "reboot") == 0)
        end_guest(RB_AUTOBOOT);
    else
        fail("unknown command", 0);
}

int main(void)
{
    char line[1024];
    printf("\n@ready\n"); /* the firmware may have left a line without an end */
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        if (line[0])
            obey(line);
        fflush(stdout);
    }
    return 1;
}
