/* Loaded before libc into a daemon: lets its wall clock jump, and its disk be slow.

   CHAOS_CONTROL names a file of 64-bit integers. The bench changes two while the daemon runs: how many nanoseconds
   CLOCK_REALTIME is off, and how much longer each read, write and sync below the directory CHAOS_DISK takes. The others
   are counted here: looks at a clock that is off, calls that took longer, and calls for which there was no room, below
   that directory and elsewhere. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
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
    int64_t misled;
    int64_t delayed;
    int64_t refused_disk;
    int64_t refused_elsewhere;
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
    void *found = mmap(NULL, sizeof calm, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED)
        control = found;
    close(fd);
}

static void count(int64_t *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    if (!real_clock)
        real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock(id, now);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t off = control->offset_ns;
        if (off)
            count(&control->misled);
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

static int below_disk(int fd)
{
    char link[48], path[4096];
    if (!*disk)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return !strncmp(path, disk, strlen(disk));
}

static void drag(int fd)
{
    int64_t delay = control->delay_ns;
    if (!delay || !below_disk(fd))
        return;
    count(&control->delayed);
    struct timespec wait = {delay / 1000000000, delay % 1000000000};
    nanosleep(&wait, NULL);
}

static void note(int fd, int error)
{
    if (error != ENOSPC)
        return;
    count(below_disk(fd) ? &control->refused_disk : &control->refused_elsewhere);
    errno = error;
}

#define IN_ERRNO (result < 0 ? errno : 0)
#define RETURNED result

#define DRAGGED(name, returns, parameters, arguments, error)  \
    returns name parameters                                   \
    {                                                         \
        static returns(*real) parameters;                     \
        if (!real)                                            \
            real = dlsym(RTLD_NEXT, #name);                   \
        drag(fd);                                             \
        returns result = real arguments;                      \
        note(fd, error);                                      \
        return result;                                        \
    }

DRAGGED(read, ssize_t, (int fd, void *into, size_t size), (fd, into, size), IN_ERRNO)
DRAGGED(write, ssize_t, (int fd, const void *from, size_t size), (fd, from, size), IN_ERRNO)
DRAGGED(pwrite64, ssize_t, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at), IN_ERRNO)
DRAGGED(fsync, int, (int fd), (fd), IN_ERRNO)
DRAGGED(fdatasync, int, (int fd), (fd), IN_ERRNO)
DRAGGED(posix_fallocate64, int, (int fd, off64_t at, off64_t size), (fd, at, size), RETURNED)
DRAGGED(ftruncate64, int, (int fd, off64_t size), (fd, size), IN_ERRNO)
