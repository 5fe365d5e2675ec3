/* The flag of an OpenCL device orders memory: ThreadSanitizer (`ctest -L tsan`) finds a race here if its load does not
 * acquire. On x86-64 such a fault would show in no result, and on the phones that the flag is for only now and then. */
#include "device/opencl/flag.h"
#include "unit/test.h"

#include <pthread.h>

enum { ROUNDS = 1000, FIRST = 5 };

static _Atomic(uint32_t) flag;
static uint32_t results[ROUNDS]; /* what the device computes: plain memory */

/* Stands in for the device, whose memory is ordered by the kernel that raises the flag. */
static void *device_thread(void *first) {
    for (uint32_t i = 0; i < ROUNDS; i++) {
        results[i] = i + 1;
        atomic_store_explicit(&flag, (uint32_t)(*(ht_ticket *)first + i), memory_order_release);
    }
    return NULL;
}

static void test_results_are_seen(void **state) {
    ht_ticket first[] = {FIRST, UINT32_MAX - ROUNDS / 2}; /* the second: its low half passes 2^32 */
    for (size_t k = 0; k < HT_COUNT(first); k++) {
        pthread_t thread;
        memset(results, 0, sizeof results);
        atomic_store(&flag, (uint32_t)first[k] - 1);
        assert_int_equal(pthread_create(&thread, NULL, device_thread, &first[k]), 0);
        for (uint32_t i = 0; i < ROUNDS; i++) {
            while (!ht_cl_flag_reached(&flag, first[k] + i))
                sched_yield();
            assert_int_equal(results[i], i + 1);
        }
        pthread_join(thread, NULL);
        assert_false(ht_cl_flag_reached(&flag, first[k] + ROUNDS));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_results_are_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
