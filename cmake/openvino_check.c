/* Compiled, never linked: our short OpenVINO header against the real ones. A difference does not compile. */
#include <openvino/c/openvino.h>

#define HT_OV_CHECK
#include "device/npu/openvino_api.h"

/* Parameter lists that differ only in a parameter's own const are the same type, which is what the ABI says too. */
#define SAME(result, name, parameters) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), result parameters), #name " has changed");
/* Where the real header says () for no parameters, compatible types are all C can ask for. */
HT_OV_FUNCTIONS(SAME)

#define SAME_MEMBER(ours, our_member, theirs, their_member)                                    \
    _Static_assert(offsetof(ours, our_member) == offsetof(theirs, their_member) &&             \
                       sizeof(((ours *)0)->our_member) == sizeof(((theirs *)0)->their_member), \
                   #theirs " has changed")
SAME_MEMBER(ht_ov_shape, rank, ov_shape_t, rank);
SAME_MEMBER(ht_ov_shape, dims, ov_shape_t, dims);
SAME_MEMBER(ht_ov_property, key, ov_property_t, key);
SAME_MEMBER(ht_ov_property, value, ov_property_t, value);
SAME_MEMBER(ht_ov_version, build_number, ov_version_t, buildNumber);
SAME_MEMBER(ht_ov_version, description, ov_version_t, description);
SAME_MEMBER(ht_ov_devices, devices, ov_available_devices_t, devices);
SAME_MEMBER(ht_ov_devices, size, ov_available_devices_t, size);
_Static_assert(sizeof(ht_ov_shape) == sizeof(ov_shape_t) && sizeof(ht_ov_property) == sizeof(ov_property_t) &&
                   sizeof(ht_ov_version) == sizeof(ov_version_t) &&
                   sizeof(ht_ov_devices) == sizeof(ov_available_devices_t),
               "a struct has changed");
_Static_assert(sizeof(ov_status_e) == sizeof(int) && sizeof(ov_element_type_e) == sizeof(unsigned), "enums are ints");
_Static_assert((int)HT_OV_OK == (int)OK && (int)HT_OV_F32 == (int)F32 && (int)HT_OV_I8 == (int)I8 &&
                   (int)HT_OV_U8 == (int)U8,
               "a constant has changed");
