/* For joins: a flag that the host watches, and a kernel that takes a while (the probe's). */
__kernel void raise_flag(__global volatile uint *flag, uint value) { *flag = value; }

__kernel void keep_busy(__global float *out, uint rounds) {
    float x = out[0];
    for (uint i = 0; i < rounds; i++) x = x * 0.999f + 1.0f; /* each waits for the last: cannot be shortened */
    out[0] = x;
}
