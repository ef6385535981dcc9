/* Loaded before libc into a daemon: lets its wall clock jump, and its disk be slow.

   CHAOS_CONTROL names a file of two 64-bit integers, which the bench changes while the daemon runs: how many
   nanoseconds CLOCK_REALTIME is off, and how long each write and sync below the directory CHAOS_DISK takes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t offset_ns;
    volatile int64_t delay_ns;
};

static struct control calm;
static struct control *control = &calm;
static const char *disk = "";
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CHAOS_CONTROL");
    const char *below = getenv("CHAOS_DISK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (below)
        disk = strdup(below);
    if (fd < 0)
        return;
    void *found = mmap(NULL, sizeof calm, PROT_READ, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED)
        control = found;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    if (!real_clock)
        real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock(id, now);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t off = control->offset_ns;
        now->tv_sec += off / 1000000000;
        now->tv_nsec += off % 1000000000;
        if (now->tv_nsec >= 1000000000) {
            now->tv_sec++;
            now->tv_nsec -= 1000000000;
        } else if (now->tv_nsec < 0) {
            now->tv_sec--;
            now->tv_nsec += 1000000000;
        }
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (into)
        *into = precise.tv_sec;
    return precise.tv_sec;
}

static void drag(int fd)
{
    char link[48], path[4096];
    int64_t delay = control->delay_ns;
    if (!delay || !*disk)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = 0;
    if (strncmp(path, disk, strlen(disk)))
        return;
    struct timespec wait = {delay / 1000000000, delay % 1000000000};
    nanosleep(&wait, NULL);
}

#define DRAGGED(name, returns, parameters, arguments)         \
    returns name parameters                                   \
    {                                                         \
        static returns(*real) parameters;                     \
        if (!real)                                            \
            real = dlsym(RTLD_NEXT, #name);                   \
        drag(fd);                                             \
        return real arguments;                                \
    }

DRAGGED(write, ssize_t, (int fd, const void *from, size_t size), (fd, from, size))
DRAGGED(pwrite64, ssize_t, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
DRAGGED(fsync, int, (int fd), (fd))
DRAGGED(fdatasync, int, (int fd), (fd))
DRAGGED(posix_fallocate64, int, (int fd, off64_t at, off64_t size), (fd, at, size))
DRAGGED(ftruncate64, int, (int fd, off64_t size), (fd, size))
