/* Slots of operators that belong to no model: as many as tests of devices need. */
#ifndef TEST_SLOTS_H
#define TEST_SLOTS_H

enum { SLOT_IDS, SLOT_X, SLOT_NORMED, SLOT_QKV, SLOT_ATTN, SLOT_DELTA, SLOT_FFN, SLOT_ACT, SLOT_LOGITS, SLOT_PICK };

#endif
