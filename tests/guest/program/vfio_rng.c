/*
 * Drives a virtio-rng from user space through VFIO, and takes mappings away under it.
 *
 *   vfio_rng RNG [OTHER]      PCI addresses, both bound to vfio-pci; OTHER only joins the container
 *   vfio_rng RNG late
 *
 * Every line of output is "NAME VALUE". The steps, in this order:
 *
 *   bytes HEX                 64 bytes that the device wrote into a mapped buffer
 *   unmapped USED SAME        a request into a buffer whose mapping was removed: used length, and whether the
 *                             memory that was behind it is untouched
 *   readonly USED SAME        the same with a buffer that the device may only read
 *   again HEX                 64 bytes after the buffer was mapped again: the queue goes on
 *   ring USED SAME            the ring's mapping is removed, and the device notified of one more request: how far
 *                             the used index went, and whether the ring's memory is untouched
 *   restarted HEX             64 bytes after a reset, with the ring mapped again
 *   load ROUNDS               requests into buffers that come and go
 *   mapping IOVA BYTES        one for each mapping that is left in the end
 *   waiting 0                 all is left as it is until the file /tmp/go exists
 *
 * With "late" as second argument, after the first step:
 *
 *   asked 0                   a request was made, as soon as the file /tmp/ask existed
 *   taken 0                   the buffer's mapping was removed, as soon as the file /tmp/unmap existed
 *   late USED SAME            the request came back: used length, and whether the memory is untouched
 */
#include <stddef.h>

#include "vfio.h"

enum { PAGE = 4096, QUEUE = 16, ASKED = 64, CANARY = 0xa5, BUFFERS = 32, ROUNDS = 400 };

/* The VMM looks ring addresses up in RAM, so I/O addresses lie below its end. */
static const uint64_t RING_IOVA = 0x10000000, BUFFER_IOVA = 0x10100000, LOAD_IOVA = 0x10200000;

/* Status bits and feature bits of virtio. */
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { VERSION_1 = 1, ACCESS_PLATFORM = 2 }; /* of the high word */

/* Places in the common configuration structure. */
enum { FEATURE_SELECT = 0, FEATURE = 4, GUEST_SELECT = 8, GUEST_FEATURE = 12, STATUS = 20, QUEUE_SELECT = 22,
       QUEUE_SIZE = 24, QUEUE_ENABLE = 28, NOTIFY_OFF = 30, DESC = 32, AVAIL = 40, USED = 48 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

/* All parts of the ring in one page. */
struct ring {
    struct descriptor descriptors[QUEUE];
    uint16_t avail_flags, avail_index, avail[QUEUE], avail_event;
    uint16_t pad[3];
    /* The alignment is of the first of the two only. */
    _Alignas(4) uint16_t used_flags;
    uint16_t used_index;
    struct {
        uint32_t id, length;
    } used[QUEUE];
    uint16_t used_event;
};

static uint64_t common, notify, notify_multiplier;
static volatile struct ring *ring;
static unsigned char *buffer;

static void put64(uint64_t at, uint64_t value)
{
    put(at, value & 0xffffffff, 4);
    put(at + 4, value >> 32, 4);
}

/* Finds the structures that the device's capabilities name. */
static void find_structures(void)
{
    uint64_t config = region(VFIO_PCI_CONFIG_REGION_INDEX);
    put(config + 4, get(config + 4, 2) | 6, 2); /* memory and bus mastering */
    for (uint64_t at = get(config + 0x34, 1); at != 0; at = get(config + at + 1, 1)) {
        if (get(config + at, 1) != 9)
            continue;
        uint64_t type = get(config + at + 3, 1);
        if (type != 1 && type != 2)
            continue;
        uint64_t place = region(VFIO_PCI_BAR0_REGION_INDEX + get(config + at + 4, 1)) + get(config + at + 8, 4);
        if (type == 1) {
            common = place;
        } else {
            notify = place;
            notify_multiplier = get(config + at + 16, 4);
        }
    }
    if (!common || !notify)
        die("no virtio structures");
}

static void start(void)
{
    put(common + STATUS, 0, 1);
    while (get(common + STATUS, 1) != 0)
        usleep(1000);
    memset((void *)ring, 0, sizeof *ring);
    put(common + STATUS, ACKNOWLEDGE | DRIVER, 1);
    put(common + FEATURE_SELECT, 1, 4);
    if ((get(common + FEATURE, 4) & (VERSION_1 | ACCESS_PLATFORM)) != (VERSION_1 | ACCESS_PLATFORM))
        die("features are missing");
    put(common + GUEST_SELECT, 0, 4);
    put(common + GUEST_FEATURE, 0, 4);
    put(common + GUEST_SELECT, 1, 4);
    put(common + GUEST_FEATURE, VERSION_1 | ACCESS_PLATFORM, 4);
    put(common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK, 1);
    put(common + QUEUE_SELECT, 0, 2);
    put(common + QUEUE_SIZE, QUEUE, 2);
    put64(common + DESC, RING_IOVA + offsetof(struct ring, descriptors));
    put64(common + AVAIL, RING_IOVA + offsetof(struct ring, avail_flags));
    put64(common + USED, RING_IOVA + offsetof(struct ring, used_flags));
    put(common + QUEUE_ENABLE, 1, 2);
    put(common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, 1);
}

/* Makes a request for bytes at iova and notifies the device. */
static void ask(uint64_t iova, uint32_t length)
{
    uint16_t index = ring->avail_index, slot = index % QUEUE;
    ring->descriptors[slot] = (struct descriptor){ iova, length, 2, 0 };
    ring->avail[slot] = slot;
    __sync_synchronize();
    ring->avail_index = (uint16_t)(index + 1);
    __sync_synchronize();
    put(notify + get(common + NOTIFY_OFF, 2) * notify_multiplier, 0, 2);
}

/* Waits for all requests; the used length of the last one, -1 if none comes. */
static long answer(void)
{
    for (int tries = 0; ring->used_index != ring->avail_index; tries++) {
        if (tries == 5000)
            return -1;
        usleep(1000);
    }
    __sync_synchronize();
    return (long)ring->used[(uint16_t)(ring->used_index - 1) % QUEUE].length;
}

static int is_untouched(const volatile unsigned char *memory, size_t bytes, unsigned char value)
{
    for (size_t i = 0; i < bytes; i++)
        if (memory[i] != value)
            return 0;
    return 1;
}

static void print_bytes(const char *name, const unsigned char *bytes)
{
    printf("%s ", name);
    for (int i = 0; i < ASKED; i++)
        printf("%02x", bytes[i]);
    printf("\n");
}

static void expect_bytes(const char *name)
{
    memset(buffer, CANARY, PAGE);
    ask(BUFFER_IOVA + 100, ASKED);
    if (answer() != ASKED)
        die("%s: no answer of %d bytes", name, ASKED);
    if (!is_untouched(buffer, 100, CANARY) || !is_untouched(buffer + 100 + ASKED, PAGE - 100 - ASKED, CANARY))
        die("%s: bytes beside the buffer changed", name);
    print_bytes(name, buffer + 100);
}

static void expect_fault(const char *name)
{
    memset(buffer, CANARY, PAGE);
    ask(BUFFER_IOVA + 100, ASKED);
    long used = answer();
    printf("%s %ld %d\n", name, used, is_untouched(buffer, PAGE, CANARY));
}

static void wait_for(const char *path)
{
    while (access(path, F_OK) != 0)
        usleep(100000);
}

/* Takes the buffer away while the device has it, when the host says so; what comes later must not arrive. */
static void lose_buffer(void)
{
    wait_for("/tmp/ask");
    memset(buffer, CANARY, PAGE);
    ask(BUFFER_IOVA + 100, ASKED);
    printf("asked 0\n");
    wait_for("/tmp/unmap");
    unmap(BUFFER_IOVA, PAGE);
    printf("taken 0\n");
    long used = answer();
    printf("late %ld %d\n", used, is_untouched(buffer, PAGE, CANARY));
}

static void lose_ring(void)
{
    static struct ring before;
    unmap(RING_IOVA, PAGE);
    ask(BUFFER_IOVA, ASKED);
    before = *(struct ring *)ring;
    usleep(300000);
    printf("ring %u %d\n", ring->used_index, memcmp(&before, (void *)ring, sizeof before) == 0);
}

/* Requests into buffers of which half come and go all the time; what is left stays mapped. */
static void load(void)
{
    static unsigned char *memory[BUFFERS];
    static int is_mapped[BUFFERS];
    unsigned random = 1;
    for (int i = 0; i < BUFFERS; i++)
        memory[i] = pages(3 * PAGE);
    for (int round = 0; round < ROUNDS; round++) {
        random = random * 1103515245 + 12345;
        int i = (int)(random >> 16) % BUFFERS;
        uint64_t iova = LOAD_IOVA + (uint64_t)i * 16 * PAGE;
        if (!is_mapped[i]) {
            map(iova, memory[i], 3 * PAGE, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
            ask(iova + 17, 2 * PAGE);
            if (answer() != 2 * PAGE)
                die("load: round %d has no answer", round);
        } else {
            unmap(iova, 3 * PAGE);
        }
        is_mapped[i] = !is_mapped[i];
    }
    printf("load %d\n", ROUNDS);
    for (int i = 0; i < BUFFERS; i++)
        if (is_mapped[i])
            printf("mapping 0x%" PRIx64 " %d\n", LOAD_IOVA + (uint64_t)i * 16 * PAGE, 3 * PAGE);
}

int main(int count, char **arguments)
{
    const uint32_t both = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2)
        die("usage: vfio_rng RNG [OTHER], or RNG late");
    int is_late = count == 3 && strcmp(arguments[2], "late") == 0;
    container = open("/dev/vfio/vfio", O_RDWR);
    for (int i = 1; i < count - is_late; i++)
        join(arguments[i]);
    ring = pages(PAGE);
    buffer = pages(PAGE);
    map(RING_IOVA, (void *)ring, PAGE, both);
    map(BUFFER_IOVA, buffer, PAGE, both);
    find_structures();
    start();
    expect_bytes("bytes");
    if (is_late) {
        lose_buffer();
        put(common + STATUS, 0, 1);
        return 0;
    }
    unmap(BUFFER_IOVA, PAGE);
    expect_fault("unmapped");
    map(BUFFER_IOVA, buffer, PAGE, VFIO_DMA_MAP_FLAG_READ);
    expect_fault("readonly");
    unmap(BUFFER_IOVA, PAGE);
    map(BUFFER_IOVA, buffer, PAGE, both);
    expect_bytes("again");
    lose_ring();
    map(RING_IOVA, (void *)ring, PAGE, both);
    start();
    expect_bytes("restarted");
    load();
    printf("waiting 0\n");
    wait_for("/tmp/go");
    put(common + STATUS, 0, 1);
    return 0;
}
