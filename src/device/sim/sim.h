/* Simulated processors as devices, for those who ask for more than the seam tells. */
#ifndef HT_SIM_H
#define HT_SIM_H

#include "device/sim/machine.h"

/* The machine of a simulated device, and which of its processors the device is; NULL: it is no such device. */
ht_machine *ht_sim_machine(const ht_device *device, size_t *processor);

#endif
