/*
 * Has QEMU's edu device move 8 bytes through VFIO, and takes mappings away under it.
 *
 *   vfio_edu EDU              PCI address, bound to vfio-pci
 *
 * Every line of output is "NAME ARRIVED", where 1 says that the device has read one page and written another:
 *
 *   mapped                    both pages are mapped
 *   readonly                  the one that it writes may only be read
 *   unmapped                  that one's mapping was removed
 *   again                     it is mapped again
 *   source                    the mapping of the one that it reads was removed
 */
#include "vfio.h"

enum { PAGE = 4096 };

/* I/O addresses of the two pages. */
static const uint64_t SOURCE_IOVA = 0x40000000, TARGET_IOVA = 0x40001000;

/* Registers, and the device's buffer as its DMA addresses it (docs/specs/edu.rst of QEMU). */
enum { DMA_SOURCE = 0x80, DMA_TARGET = 0x88, DMA_COUNT = 0x90, DMA_COMMAND = 0x98, BUFFER = 0x40000 };
enum { START = 1, TO_MEMORY = 2, COUNT = 8 };

static uint64_t registers;
static volatile uint64_t *source, *target;

static void transfer(uint64_t from, uint64_t to, uint64_t command)
{
    put(registers + DMA_SOURCE, from, 8);
    put(registers + DMA_TARGET, to, 8);
    put(registers + DMA_COUNT, COUNT, 8);
    put(registers + DMA_COMMAND, command, 8);
    while (get(registers + DMA_COMMAND, 8) & START)
        usleep(10000);
}

/* Moves a value that was never there before from the source page to the target page. */
static void move(const char *name)
{
    static uint64_t value = 0xed0000000000;
    *source = ++value;
    *target = 0;
    transfer(SOURCE_IOVA, BUFFER, START);
    transfer(BUFFER, TARGET_IOVA, START | TO_MEMORY);
    printf("%s %d\n", name, *target == value);
}

int main(int count, char **arguments)
{
    const uint32_t both = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    if (count != 2)
        die("usage: vfio_edu EDU");
    container = open("/dev/vfio/vfio", O_RDWR);
    join(arguments[1]);
    uint64_t config = region(VFIO_PCI_CONFIG_REGION_INDEX);
    put(config + 4, get(config + 4, 2) | 6, 2); /* memory and bus mastering */
    registers = region(VFIO_PCI_BAR0_REGION_INDEX);
    source = pages(PAGE);
    target = pages(PAGE);
    map(SOURCE_IOVA, (void *)source, PAGE, both);
    map(TARGET_IOVA, (void *)target, PAGE, both);
    move("mapped");
    unmap(TARGET_IOVA, PAGE);
    map(TARGET_IOVA, (void *)target, PAGE, VFIO_DMA_MAP_FLAG_READ);
    move("readonly");
    unmap(TARGET_IOVA, PAGE);
    move("unmapped");
    map(TARGET_IOVA, (void *)target, PAGE, both);
    move("again");
    unmap(SOURCE_IOVA, PAGE);
    move("source");
    return 0;
}
