/* A libnvidia-ml.so.1 without a GPU: A100-like boards whose power answers to load, clock lock and limit, and which fail
 * on command. State lives in the file named by POLCAD_FAKE_NVML (see node.h), read anew at each nvmlInit.
 * With -DOLD_DRIVER the symbols that old drivers lack are left out. Numbers are those of the public NVML interface. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "node.h"

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, LIB_RM_VERSION_MISMATCH = 18, UNKNOWN = 999 };
enum { LOW_MHZ = 210, STEP_MHZ = 15, HIGH_MHZ = 1410, MEMORY_MHZ = 1215 };
enum { MIN_MW = 100000, MAX_MW = 400000, IDLE_MW = 65000 };
enum { SW_POWER_CAP = 0x4, IDLE_BIT = 0x1 };

typedef int ret;
typedef struct gpu *handle;

static struct node *node;
static uint32_t initialised_epoch;
static int references;
static pthread_mutex_t sampling = PTHREAD_MUTEX_INITIALIZER;

/* ---- the board ---- */

/* Power at a clock as a fraction of power at HIGH_MHZ, for batched LLM inference on an A100; below 510 extrapolated. */
static double power_frac(double mhz) {
    static const double at[] = {210, 510, 690, 900, 1050, 1110, 1200, 1275, 1305, 1350, 1410};
    static const double frac[] = {.40, .486, .545, .629, .670, .701, .765, .833, .867, .908, 1};
    int i = 1;
    while (i < 10 && mhz > at[i]) i++;
    return frac[i - 1] + (frac[i] - frac[i - 1]) * (mhz - at[i - 1]) / (at[i] - at[i - 1]);
}

static double power_at(const struct gpu *g, uint32_t mhz) {
    return IDLE_MW + g->load * (MAX_MW * power_frac(mhz) - IDLE_MW);
}

static uint32_t enforced_mw(const struct gpu *g) {
    return g->held_limit_mw && g->held_limit_mw < g->limit_mw ? g->held_limit_mw : g->limit_mw;
}

static uint32_t allowed_mhz(const struct gpu *g) {
    return g->lock_mhz && !g->ignore_lock ? g->lock_mhz : HIGH_MHZ;
}

static uint32_t clock_mhz(const struct gpu *g) {
    uint32_t mhz = allowed_mhz(g);
    if (g->load <= 0) return LOW_MHZ;
    while (mhz > LOW_MHZ && power_at(g, mhz) > enforced_mw(g)) mhz -= STEP_MHZ;
    return mhz;
}

/* Not of NVML: what a meter at the board's plug shows, whatever its driver and its sensors say. */
double fake_plug_mw(const struct gpu *g) {
    return power_at(g, clock_mhz(g));
}

static double now_s(const struct node *n) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9 + n->time_offset_s;
}

/* Brings energy and average up to now; the power of this moment is taken for all the time since the last call. */
static double sample_mw(struct node *n, struct gpu *g) {
    double power = power_at(g, clock_mhz(g)), t, since;
    pthread_mutex_lock(&sampling);
    t = now_s(n);
    since = g->sampled_t > 0 && t > g->sampled_t ? t - g->sampled_t : 0;
    if (g->sampled_t <= 0) g->average_mw = power;
    g->energy_mj += power * since;
    g->average_mw += (power - g->average_mw) * (since < 1 ? since : 1);
    g->sampled_t = t;
    pthread_mutex_unlock(&sampling);
    return power;
}

/* ---- every call passes one of these ---- */

static ret session(struct node **n) {
    *n = node;
    if (!node || references == 0) return UNINITIALIZED;
    return initialised_epoch == node->driver_epoch ? OK : UNINITIALIZED;
}

static ret enter(handle g) {
    struct node *n;
    int waited_ms = 0;
    ret r = session(&n);
    if (r) return r;
    if (!g) return INVALID_ARGUMENT;
    for (; g->hang && waited_ms < 60000; waited_ms++) usleep(1000);
    return g->absent ? GPU_IS_LOST : OK;
}

static ret reading(handle g) {
    ret r = enter(g);
    return r ? r : (ret)g->read_error;
}

static ret writing(handle g) {
    ret r = enter(g);
    if (r == OK) r = (ret)g->write_error;
    if (r) g->refused_writes++;
    return r;
}

static ret refuse(handle g) {
    g->refused_writes++;
    return INVALID_ARGUMENT;
}

/* ---- the interface: driver ---- */

static struct node *attach(const char *path) {
    int fd = open(path, O_RDWR);
    void *at;
    if (fd < 0) return NULL;
    at = mmap(NULL, sizeof(struct node), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

ret nvmlInitWithFlags(unsigned flags) {
    const char *path = getenv("POLCAD_FAKE_NVML");
    struct node *n = path ? attach(path) : NULL;
    (void)flags;
    if (!n) return DRIVER_NOT_LOADED;
    if (n->size != sizeof(struct node)) return LIB_RM_VERSION_MISMATCH;
    if (n->driver_missing) return DRIVER_NOT_LOADED;
    node = n; /* the former mapping stays: a hanging call may still look at it */
    initialised_epoch = n->driver_epoch;
    references++;
    n->inits++;
    return OK;
}

ret nvmlShutdown(void) {
    if (references == 0) return UNINITIALIZED;
    references--;
    return OK;
}

const char *nvmlErrorString(ret code) {
    static __thread char text[32];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}

ret nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "000.00-fake");
    return OK;
}

ret nvmlDeviceGetCount_v2(unsigned *count) {
    struct node *n;
    ret r = session(&n);
    unsigned i;
    *count = 0;
    for (i = 0; r == OK && i < n->count; i++) *count += !n->gpus[n->order[i]].absent;
    return r;
}

ret nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *device) {
    struct node *n;
    ret r = session(&n);
    unsigned i;
    if (r) return r;
    for (i = 0; i < n->count; i++) {
        *device = &n->gpus[n->order[i]];
        if (!(*device)->absent && index-- == 0) return OK;
    }
    return INVALID_ARGUMENT;
}

/* ---- the interface: what a board is ---- */

ret nvmlDeviceGetUUID(handle g, char *uuid, unsigned length) {
    ret r = reading(g);
    if (r == OK) snprintf(uuid, length, "%s", g->uuid);
    return r;
}

ret nvmlDeviceGetName(handle g, char *name, unsigned length) {
    ret r = reading(g);
    if (r == OK) snprintf(name, length, "Fake A100-SXM4");
    return r;
}

ret nvmlDeviceGetCudaComputeCapability(handle g, int *major, int *minor) {
    ret r = reading(g);
    *major = 8;
    *minor = r ? 0 : (int)node->cuda_minor;
    return r;
}

static ret list(unsigned *count, unsigned *out, unsigned length, unsigned first, int step) {
    unsigned i, room = *count;
    *count = length;
    if (!out || room < length) return INSUFFICIENT_SIZE;
    for (i = 0; i < length; i++) out[i] = first + (int)i * step;
    return OK;
}

ret nvmlDeviceGetSupportedMemoryClocks(handle g, unsigned *count, unsigned *mhz) {
    ret r = reading(g);
    return r ? r : list(count, mhz, 1, MEMORY_MHZ, 0);
}

ret nvmlDeviceGetSupportedGraphicsClocks(handle g, unsigned memory_mhz, unsigned *count, unsigned *mhz) {
    ret r = reading(g);
    if (r == OK && memory_mhz != MEMORY_MHZ) r = NOT_FOUND;
    return r ? r : list(count, mhz, (HIGH_MHZ - LOW_MHZ) / STEP_MHZ + 1, HIGH_MHZ, -STEP_MHZ);
}

ret nvmlDeviceGetMaxClockInfo(handle g, unsigned type, unsigned *mhz) {
    (void)type;
    *mhz = HIGH_MHZ;
    return reading(g);
}

ret nvmlDeviceGetPowerManagementLimitConstraints(handle g, unsigned *min_mw, unsigned *max_mw) {
    *min_mw = MIN_MW;
    *max_mw = MAX_MW;
    return reading(g);
}

/* ---- the interface: what a board does ---- */

static unsigned shown_mw(handle g, double power) {
    return g->force_power ? g->forced_mw : (unsigned)power;
}

/* Averaged over a second on boards after GA100 (compute capability 8.0), of the moment on it. */
ret nvmlDeviceGetPowerUsage(handle g, unsigned *mw) {
    ret r = reading(g);
    double power = r ? 0 : sample_mw(node, g);
    if (r == OK) *mw = shown_mw(g, node->cuda_minor ? g->average_mw : power);
    return r;
}

ret nvmlDeviceGetUtilizationRates(handle g, unsigned rates[2]) {
    ret r = reading(g);
    if (r) return r;
    rates[0] = (unsigned)(g->load * 100 + .5);
    rates[1] = rates[0] / 2;
    return OK;
}

ret nvmlDeviceGetMemoryInfo(handle g, unsigned long long memory[3]) {
    ret r = reading(g);
    if (r) return r;
    memory[0] = 80ULL << 30; /* total, free, used */
    memory[2] = (g->load > 0 ? 60ULL : 0ULL) << 30;
    memory[1] = memory[0] - memory[2];
    return OK;
}

ret nvmlDeviceGetClockInfo(handle g, unsigned type, unsigned *mhz) {
    ret r = reading(g);
    (void)type;
    if (r == OK) *mhz = clock_mhz(g);
    return r;
}

ret nvmlDeviceGetTemperature(handle g, unsigned sensor, unsigned *celsius) {
    ret r = reading(g);
    (void)sensor;
    if (r == OK) *celsius = 30 + (unsigned)(sample_mw(node, g) / 10000);
    return r;
}

ret nvmlDeviceGetCurrentClocksThrottleReasons(handle g, unsigned long long *bits) {
    ret r = reading(g);
    if (r == OK) *bits = g->load <= 0 ? IDLE_BIT : clock_mhz(g) < allowed_mhz(g) ? SW_POWER_CAP : 0;
    return r;
}

ret nvmlDeviceGetPowerManagementLimit(handle g, unsigned *mw) {
    ret r = reading(g);
    if (r == OK) *mw = g->limit_mw;
    return r;
}

ret nvmlDeviceGetPowerManagementDefaultLimit(handle g, unsigned *mw) {
    ret r = reading(g);
    if (r == OK) *mw = MAX_MW;
    return r;
}

ret nvmlDeviceGetPersistenceMode(handle g, unsigned *mode) {
    ret r = reading(g);
    if (r == OK) *mode = g->persistence;
    return r;
}

ret nvmlDeviceGetEnforcedPowerLimit(handle g, unsigned *mw) {
    ret r = reading(g);
    if (r == OK) *mw = enforced_mw(g);
    return r;
}

#ifndef OLD_DRIVER
ret nvmlDeviceGetCurrentClocksEventReasons(handle g, unsigned long long *bits) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(g, bits);
}

struct field {
    uint32_t id, scope;
    int64_t timestamp, latency_us;
    int32_t type; /* 1 unsigned int, 3 unsigned long long */
    int32_t code;
    union { uint32_t u32; uint64_t u64; } value;
};

static void read_field(handle g, struct field *f) {
    double power = sample_mw(node, g);
    f->code = OK;
    f->type = 1;
    f->value.u64 = 0;
    switch (f->id) {
    case 83: f->type = 3; f->value.u64 = (uint64_t)g->energy_mj; break;
    case 185: f->code = g->power_field_error; f->value.u32 = shown_mw(g, g->average_mw); break;
    case 186: f->code = g->power_field_error; f->value.u32 = shown_mw(g, power); break;
    case 190: f->value.u32 = enforced_mw(g); break;
    case 192: f->value.u32 = g->limit_mw; break;
    default: f->code = NOT_SUPPORTED;
    }
}

ret nvmlDeviceGetFieldValues(handle g, int count, struct field *fields) {
    ret r = reading(g);
    int i;
    for (i = 0; r == OK && i < count; i++) read_field(g, &fields[i]);
    return r;
}
#endif

/* ---- the interface: what can be set ---- */

ret nvmlDeviceSetGpuLockedClocks(handle g, unsigned min_mhz, unsigned max_mhz) {
    ret r = writing(g);
    if (r) return r;
    if (min_mhz > max_mhz || min_mhz < LOW_MHZ || max_mhz > HIGH_MHZ) return refuse(g);
    sample_mw(node, g);
    g->lock_mhz = max_mhz - (max_mhz - LOW_MHZ) % STEP_MHZ;
    g->lock_writes++;
    return OK;
}

ret nvmlDeviceResetGpuLockedClocks(handle g) {
    ret r = writing(g);
    if (r == OK && g->no_reset) r = NOT_SUPPORTED;
    if (r) return r;
    sample_mw(node, g);
    g->lock_mhz = 0;
    g->lock_resets++;
    return OK;
}

ret nvmlDeviceSetPowerManagementLimit(handle g, unsigned mw) {
    ret r = writing(g);
    if (r) return r;
    if (mw < MIN_MW || mw > MAX_MW) return refuse(g);
    sample_mw(node, g);
    g->limit_mw = mw;
    g->limit_writes++;
    return OK;
}
