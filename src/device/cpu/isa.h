/* The CPU device's choice of kernels. */
#ifndef HT_ISA_H
#define HT_ISA_H

#include "device/cpu/kernels.h"
#include "device/device.h"

/* The kernels of this name ("avx2"), NULL: the best that the processor has. HT_ERROR_ARGUMENT: there are none of this name,
 * HT_ERROR_DEVICE: not for this processor. */
ht_status ht_cpu_choose(const char *wanted, const ht_cpu_kernels **kernels, ht_error *error);
void ht_cpu_describe(ht_device_caps *caps, const ht_cpu_kernels *kernels);
/* Adds the processor to a list of devices. */
ht_status ht_cpu_list(ht_device_info **list, size_t *n, ht_error *error);

#endif
