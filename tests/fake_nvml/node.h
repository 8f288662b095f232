/* The state of a fake node, shared through the control file between the library and tests/fake_nvml/control.py.
 * control.py mirrors these structures; `size` lets the library notice when the two differ. */
#ifndef POLCAD_FAKE_NVML_NODE_H
#define POLCAD_FAKE_NVML_NODE_H

#include <stdint.h>

#define MAX_GPUS 16

struct gpu {
    /* what the board is and does */
    char uuid[96];
    double load;        /* 0 idle .. 1 all the board can draw */
    uint32_t limit_mw;  /* requested */
    uint32_t lock_mhz;  /* upper end of the clock lock, 0: none */
    double energy_mj;   /* since the driver was loaded */
    double average_mw;  /* of about the last second */
    double sampled_t;   /* when the two above were brought up to date */
    /* faults, all 0 when well */
    uint32_t absent;            /* off the bus: GPU_IS_LOST, and not listed at the next init */
    uint32_t hang;              /* every call waits until this is 0 again */
    uint32_t read_error;        /* every getter returns it */
    uint32_t write_error;       /* every setter returns it */
    uint32_t power_field_error; /* return code of the power fields alone */
    uint32_t force_power;       /* power reads give `forced_mw` as it stands: zero, spike, sentinel */
    uint32_t forced_mw;
    uint32_t held_limit_mw;     /* somebody else holds this limit; the lower of both is enforced */
    uint32_t ignore_lock;       /* lock calls succeed and change nothing */
    uint32_t no_reset;          /* ResetGpuLockedClocks is NOT_SUPPORTED */
    /* what was done to it */
    uint32_t lock_writes;       /* SetGpuLockedClocks that succeeded */
    uint32_t lock_resets;
    uint32_t limit_writes;
    uint32_t refused_writes;
    /* how it is set up */
    uint32_t persistence;       /* 1: the driver keeps it when nobody uses it */
};

struct node {
    uint32_t size;            /* of this structure, as control.py sees it */
    uint32_t count;           /* slots in `order` */
    uint32_t driver_missing;  /* init fails with DRIVER_NOT_LOADED */
    uint32_t driver_epoch;    /* grows with a reload: whoever initialised before is UNINITIALIZED */
    uint32_t inits;           /* successful inits so far */
    uint32_t cuda_minor;      /* compute capability 8.x: 0 is GA100 */
    double time_offset_s;     /* added to the clock, so that tests need not wait */
    uint32_t order[MAX_GPUS]; /* index -> slot */
    struct gpu gpus[MAX_GPUS];
};

#endif
