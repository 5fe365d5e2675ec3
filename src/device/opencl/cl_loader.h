/* OpenCL's functions, opened at run time: the engine starts on machines without an ICD loader and says so. Types and
 * constants come from the Khronos headers; a build without them has no OpenCL device (HT_HAVE_OPENCL 0). */
#ifndef HT_CL_LOADER_H
#define HT_CL_LOADER_H

#include "base/base.h"
#include "base/cores.h"

#if defined(HETERO_HAVE_OPENCL_HEADERS) /* from CMake */
#define HT_HAVE_OPENCL 1
#else
#define HT_HAVE_OPENCL 0
#endif

#if HT_HAVE_OPENCL
#define CL_TARGET_OPENCL_VERSION 120 /* what PoCL, oclgrind and NVIDIA all have */
#include <CL/cl.h>

/* One row a function; the table's members drop the "cl" and keep the rest. */
/* clang-format off */
#define HT_CL_FUNCTIONS(X) \
    X(GetPlatformIDs) X(GetPlatformInfo) X(GetDeviceIDs) X(GetDeviceInfo) X(CreateSubDevices) X(ReleaseDevice) \
    X(CreateContext) X(ReleaseContext) X(CreateCommandQueue) X(ReleaseCommandQueue) X(Flush) X(Finish) \
    X(CreateProgramWithSource) X(CreateProgramWithBinary) X(BuildProgram) X(GetProgramInfo) X(GetProgramBuildInfo) \
    X(ReleaseProgram) X(CreateKernel) X(SetKernelArg) X(ReleaseKernel) \
    X(CreateBuffer) X(ReleaseMemObject) X(EnqueueMapBuffer) X(EnqueueUnmapMemObject) \
    X(EnqueueReadBuffer) X(EnqueueWriteBuffer) X(EnqueueReadBufferRect) X(EnqueueWriteBufferRect) \
    X(EnqueueNDRangeKernel) X(EnqueueMarkerWithWaitList) X(WaitForEvents) X(GetEventInfo) X(SetEventCallback) \
    X(ReleaseEvent)
/* clang-format on */

typedef struct ht_cl {
#define HT_CL_MEMBER(name) __typeof__(&cl##name) name;
    HT_CL_FUNCTIONS(HT_CL_MEMBER)
#undef HT_CL_MEMBER
} ht_cl;

/* The functions, loaded once a process; NULL with the reason in *why (a static string's lifetime). */
const ht_cl *ht_cl_load(const char **why);

/* For tests, while no device is open and no other thread is here: the next load takes this library instead, with a fresh
 * table; NULL: the usual one. The string must stay. */
void ht_cl_set_library(const char *name);
/* For tests: the very table that devices call through, to put failures into; NULL if nothing is loaded. */
ht_cl *ht_cl_functions_for_tests(void);

/* PoCL's threads (workers.c): found when the library is loaded; told which cores a device computes on, or no longer does. */
void ht_cl_find_workers(const ht_cl *cl);
void ht_cl_use_cores(const ht_cores *cores, bool use);

/* "CL_OUT_OF_RESOURCES", ...; "unknown code" for what has no name here. */
const char *ht_cl_error_name(cl_int code);

/* HT_OK for CL_SUCCESS; else HT_ERROR_DEVICE: "DEVICE: CALL failed: CL_... (-n)". */
ht_status ht_cl_check(cl_int code, const char *device, const char *call, ht_error *error);
#endif

#endif
