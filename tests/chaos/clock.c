/* A wall clock of its own for each process: loaded before libc, it moves CLOCK_REALTIME and leaves the others alone.
 *
 * The file named by POLCAD_FAKE_CLOCK is three doubles, written by the bench at any time: by how much the clock is set
 * (s), how fast it drifts (s per s), and the monotonic time since when it drifts (s). Debian's libfaketime 0.9.10 does
 * the same, but with its monotonic clock left alone Python's time.sleep fails under it (EINVAL).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct moved {
    double set_by_s, drift, since_s;
};

static const volatile struct moved *moved;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("POLCAD_FAKE_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        moved = page;
}

int clock_gettime(clockid_t id, struct timespec *time)
{
    int failed = (int)syscall(SYS_clock_gettime, id, time);
    if (failed || !moved || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
        return failed;
    struct timespec steady;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &steady);
    double by_s = moved->set_by_s;
    if (moved->drift != 0.0)
        by_s += moved->drift * ((double)steady.tv_sec + 1e-9 * (double)steady.tv_nsec - moved->since_s);
    double whole_s = floor(by_s);
    time->tv_sec += (time_t)whole_s;
    time->tv_nsec += (long)(1e9 * (by_s - whole_s));
    if (time->tv_nsec >= 1000000000L) {
        time->tv_nsec -= 1000000000L;
        time->tv_sec += 1;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec time;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &time))
        return -1;
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
