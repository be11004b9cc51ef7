/*
 * Memory of the agent that is mapped for a device, and the frames behind it.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, STRIDE = 7 };

/* A single page, mapped over and over; NULL with errno. */
static unsigned char *repeated_page(uint64_t bytes)
{
    unsigned char *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("page", 0);
    if (memory == MAP_FAILED || fd < 0 || ftruncate(fd, PAGE) < 0)
        return NULL;
    for (uint64_t at = 0; at < bytes; at += PAGE)
        if (mmap(memory + at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return NULL;
    close(fd);
    memory[0] = 1;
    return memory;
}

/* New memory that is present in RAM; NULL with errno. */
static unsigned char *new_memory(uint64_t bytes, const char *backing)
{
    if (strcmp(backing, "one") == 0)
        return repeated_page(bytes);
    int huge = strcmp(backing, "huge") == 0;
    int contiguous = strcmp(backing, "contiguous") == 0;
    /* Room for the start and the end to be those of transparent huge pages. */
    uint64_t reserved = contiguous ? bytes + 2 * HUGE_PAGE : bytes;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0);
    unsigned char *memory = mmap(NULL, reserved, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (contiguous) {
        unsigned char *start = (unsigned char *)(((uintptr_t)memory + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        uint64_t used = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        munmap(memory, (size_t)(start - memory));
        munmap(start + used, (size_t)(memory + reserved - start) - used);
        madvise(start, used, MADV_HUGEPAGE);
        memset(start, 1, used);
        if (used > bytes)
            munmap(start + bytes, used - bytes);
        return start;
    }
    if (!huge)
        madvise(memory, bytes, MADV_NOHUGEPAGE);
    /* Frames are handed out in the order of first touch: a stride scatters them. */
    for (uint64_t first = 0; first < STRIDE; first++)
        for (uint64_t at = first * PAGE; at < bytes; at += STRIDE * PAGE)
            memory[at] = 1;
    return memory;
}

/* Prints the frames behind the memory; 0, or -1 with errno. */
static int print_frames(uint64_t iova, uint64_t bytes, const unsigned char *memory)
{
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (fd < 0)
        return -1;
    uint64_t run_iova = iova, run_phys = 0, run_pages = 0;
    for (uint64_t at = 0; at < bytes; at += PAGE) {
        uint64_t entry;
        off_t offset = (off_t)((uintptr_t)(memory + at) / PAGE * sizeof entry);
        if (pread(fd, &entry, sizeof entry, offset) != sizeof entry || !(entry >> 63)) {
            close(fd);
            errno = ENODATA;
            return -1;
        }
        uint64_t phys = (entry & ((UINT64_C(1) << 55) - 1)) * PAGE;
        if (run_pages > 0 && phys == run_phys + run_pages * PAGE) {
            run_pages++;
            continue;
        }
        if (run_pages > 0)
            printf("@run 0x%" PRIx64 " 0x%" PRIx64 " %" PRIu64 "\n", run_iova, run_phys, run_pages);
        run_iova = iova + at;
        run_phys = phys;
        run_pages = 1;
    }
    printf("@run 0x%" PRIx64 " 0x%" PRIx64 " %" PRIu64 "\n", run_iova, run_phys, run_pages);
    close(fd);
    return 0;
}

#endif
