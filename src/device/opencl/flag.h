/* The flag that a kernel raises in memory which host and device share: it holds the low half of a ticket. */
#ifndef HT_CL_FLAG_H
#define HT_CL_FLAG_H

#include "device/device.h"

#include <stdatomic.h>

/* Has the flag reached `ticket`? Once it has, the caller sees what the device had written before: the load acquires. On
 * ARM reads behind a plain load, or a volatile one, may be served before it. */
static inline bool ht_cl_flag_reached(const _Atomic(uint32_t) *flag, ht_ticket ticket) {
    return (int32_t)(atomic_load_explicit(flag, memory_order_acquire) - (uint32_t)ticket) >= 0;
}

#endif
