/* The processors of one simulated SoC and the memory that they share, in virtual time.
 *
 * Each processor works through its commands one after the other. A command has so much to do and so many bytes to move; alone
 * it takes `seconds`, which asks the memory for its bytes in all of them but those `apart`. When all that is asked for is more than the memory delivers,
 * those who are served last get less, and their commands take as much longer. Who gets how much is worked out anew whenever a
 * command begins or ends.
 *
 * The calling thread is the holder of the clock's baton in every function here (base/clock.h). */
#ifndef HT_SIM_MACHINE_H
#define HT_SIM_MACHINE_H

#include "base/clock.h"
#include "device/sim/soc.h"

typedef struct ht_machine ht_machine;

/* What a command's seconds go to. */
typedef enum ht_work_part {
    HT_PART_MEMORY, /* bytes are longer on their way than it takes to compute with them */
    HT_PART_MATRIX, /* matrix unit; all arithmetic of a GPU or CPU */
    HT_PART_VECTOR, /* an NPU's vector unit */
    HT_PART_FIXED,  /* an operator and a graph begin, however small they are */
    HT_WORK_PARTS
} ht_work_part;

/* What a command is, of a processor alone. */
typedef struct ht_work {
    double seconds, bytes, flops;
    /* Of seconds: it computes what does not hide behind moving, so that memory that is short slows it no more. */
    double apart;
    double parts[HT_WORK_PARTS]; /* of seconds: their sum */
} ht_work;

typedef struct ht_machine_use { /* of one processor, so far */
    double seconds;             /* of virtual time since the machine began, */
    double busy, bytes, flops;  /* computing for us; what it moved and did */
    /* What the machine's time went to while this one computed for us, alone or as one of n that did: then 1/n of it. The parts
     * of all processors, and the time in which none computed, are the whole time. */
    double parts[HT_WORK_PARTS];
    size_t frames, frames_due; /* of the other load: drawn, and those that should have been */
} ht_machine_use;

/* Devices that are opened with the same *shared are processors of one machine: the first one makes it of `spec`, and the last
 * one that lets go ends it, setting *shared to NULL. HT_ERROR_ARGUMENT: it is of another SoC. */
ht_status ht_machine_join(ht_machine **shared, const char *spec, ht_machine **machine, ht_error *error);
void ht_machine_leave(ht_machine *machine);
ht_clock *ht_machine_clock(ht_machine *machine);
const ht_soc *ht_machine_soc(const ht_machine *machine);

/* Puts a command behind processor's others; tickets count 1, 2, ... The caller is busy for a launch. */
ht_ticket ht_machine_submit(ht_machine *machine, size_t processor, const ht_work *work);
ht_ticket ht_machine_completed(const ht_machine *machine, size_t processor);
/* Waits by a way of the processor's: until the ticket is complete (FINISH: everything is), and as long as the way takes to
 * notice. A ticket whose end an earlier wait has seen costs nothing, nor does, but for FINISH, one that is complete already.
 * AUTO: the cheapest way.
 * HT_ERROR_DEVICE: no such ticket was given, or nobody can ever go on. */
ht_status ht_machine_wait(ht_machine *machine, size_t processor, ht_ticket ticket, ht_sync sync, ht_error *error);

/* Another program on the processor, such as a game: `frames` a second, each of which takes `share` of the time until the next
 * if it is alone, and comes before our next command. A frame that is not drawn when the next is due is late, and that one is
 * left out. share 0: none. */
void ht_machine_load(ht_machine *machine, size_t processor, double share, double frames);

void ht_machine_use_of(ht_machine *machine, size_t processor, ht_machine_use *use);

#endif
