/* What the kernels for sparse weights are made of; docs/encoding.md describes the stream that they walk.
 *
 * A tile holds TNF_SPARSE_ROWS rows of activations, widened to int16 once for all output channels. The rows' operands of one block
 * lie together, so that a block of weights costs a step by its distance and then one load and one SMLAD for each row and each pair of
 * weights. What is skipped costs nothing.
 */
#ifndef TINYFORMER_SPARSE_H
#define TINYFORMER_SPARSE_H

#include <stdint.h>

#include "tinyformer/dsp.h"

/* Rows of a tile. */
#define TNF_SPARSE_ROWS 8
/* So many rows are computed one at a time instead, each a tile of its own. */
#define TNF_SPARSE_FEW 3
/* Words of an output channel's record: bias, multiplier, and 256 * blocks + (shift & 255). */
#define TNF_SPARSE_CHANNEL 3

/* Functions of which there is a copy for each constant argument, for which compilers see no reason. */
#if defined(__GNUC__)
#define TNF_COPIED __attribute__((always_inline)) static inline
#else
#define TNF_COPIED static inline
#endif

/* A walk over output channels; it moves on as they are done. On the target all fields are words, at offsets 0, 4, 8, ... One of
 * `single`, `rounded_twice` and `sums` is not 0: it says what becomes of a channel's sums. */
typedef struct {
    int8_t *y;              /* the first row's output of the channel */
    const int32_t *last;    /* record of the last channel */
    int32_t single;         /* 2 * zero point + 1: finish quickly, any int8 may result, and write y */
    const int32_t *channel; /* record */
    int32_t stride;         /* bytes between the rows' outputs */
    const uint32_t *tile;
    int32_t rounded_twice;  /* as `single`, for double rounding */
    int32_t *sums;          /* [channels][TNF_SPARSE_ROWS] to fill */
    const uint32_t *stream;
} tnf_sparse_walk;

/* Four activations become two pairs of int16, in the order of SXTB16 where blocks have four, side by side where they have two. Either
 * way the pairs lie a word for each of the tile's rows apart. */
TNF_COPIED int16_t *tnf_sparse_widen(int16_t *to, uint32_t bytes, int32_t block, int32_t rows)
{
    const uint32_t even = tnf_even_pair(bytes), odd = tnf_odd_pair(bytes);
    uint32_t *pairs = (uint32_t *)(void *)to;
    pairs[0] = block == 4 ? even : tnf_low_halves(even, odd);
    pairs[rows] = block == 4 ? odd : tnf_high_halves(even, odd);
    return to + 4 * rows;
}

TNF_COPIED int16_t *tnf_sparse_widen_all(int16_t *to, const int8_t *x, int32_t quads, int32_t block, int32_t rows)
{
    if ((quads & 1) != 0) {
        to = tnf_sparse_widen(to, tnf_load4(x), block, rows);
        x += 4;
    }
    for (quads >>= 1; quads > 0; quads--) {
        const uint32_t first = tnf_load4(x), second = tnf_load4(x + 4);
        to = tnf_sparse_widen(to, first, block, rows);
        to = tnf_sparse_widen(to, second, block, rows);
        x += 8;
    }
    return to;
}

/* With blocks of one, an int16 for each row: n of them, each `step` bytes after the one before. */
TNF_COPIED int16_t *tnf_sparse_widen_singly(int16_t *to, const int8_t *x, int32_t step, int32_t n, int32_t rows)
{
    for (; n > 0; n--) {
        *to = *x;
        to += rows;
        x += step;
    }
    return to;
}

/* Put n bytes into one row of a tile of `rows`, in the order of rows, filled up to whole blocks with 0; where the next bytes of the row go.
 * `to` is the row's first int16. Rounded up to four bytes, what is put there must fit the tile. */
TNF_COPIED int16_t *tnf_sparse_fill(int16_t *to, const int8_t *x, int32_t n, int32_t block, int32_t rows)
{
    const int32_t left = n & 3;
    if (block == 1) {
        return tnf_sparse_widen_singly(to, x, 1, n, rows);
    }
    to = block == 4 ? tnf_sparse_widen_all(to, x, n >> 2, 4, rows) : tnf_sparse_widen_all(to, x, n >> 2, 2, rows);
    if (left > 0) {
        const int8_t *last = x + (n - left);
        const uint32_t second = left > 1 ? (uint8_t)last[1] : 0u, third = left > 2 ? (uint8_t)last[2] : 0u;
        to = tnf_sparse_widen(to, (uint8_t)last[0] | second << 8 | third << 16, block, rows);
        to -= block == 2 && left <= 2 ? 2 * rows : 0;
    }
    return to;
}

/* The same for n channels outside the image. */
TNF_COPIED int16_t *tnf_sparse_pad(int16_t *to, int32_t zero_point, int32_t n, int32_t block, int32_t rows)
{
    const int8_t x = (int8_t)zero_point;
    const uint32_t pair = ((uint32_t)zero_point & 0xFFFFu) * 0x10001u;
    int32_t words = (n + block - 1) / block * (block / 2);
    if (block == 1) {
        return tnf_sparse_widen_singly(to, &x, 0, n, rows);
    }
    for (; words > 0; words--) {
        *(uint32_t *)(void *)to = pair;
        to += 2 * rows;
    }
    return to;
}

/* Where a row of a tile begins. */
static inline int16_t *tnf_sparse_row(void *tile, int32_t row, int32_t block)
{
    return (int16_t *)tile + (block == 1 ? row : 2 * row);
}

#if TNF_DSP_INSTRUCTIONS

/* Registers: r4-r11 the rows' sums, r0 the block's operands, r1 the stream, r2 a pair of weights, r12 and lr operands, r3 the next
 * distance. Written with the assembler's own repetition: \k counts a group's blocks.
 *
 * A pair of weights for all rows. A Cortex-M7 issues a load together with a SMLAD and wants two cycles from one to the other; the other
 * cores load faster in groups. `load` and `also` are put where they cost least. */
#ifdef TNF_DUAL_ISSUE
#define TNF_SPARSE_SUM(at, load, also, next)                  \
    "smlad r4, r12, r2, r4\n"                                 \
    load                                                      \
    "ldr r12, [r0, #" at "+8]\n"                              \
    "smlad r5, lr, r2, r5\n"                                  \
    "ldr lr, [r0, #" at "+12]\n"                              \
    "smlad r6, r12, r2, r6\n"                                 \
    "ldr r12, [r0, #" at "+16]\n"                             \
    "smlad r7, lr, r2, r7\n"                                  \
    "ldr lr, [r0, #" at "+20]\n"                              \
    "smlad r8, r12, r2, r8\n"                                 \
    "ldr r12, [r0, #" at "+24]\n"                             \
    "smlad r9, lr, r2, r9\n"                                  \
    "ldr lr, [r0, #" at "+28]\n"                              \
    "smlad r10, r12, r2, r10\n"                               \
    also                                                      \
    "smlad r11, lr, r2, r11\n"                                \
    next
#define TNF_SPARSE_PAIR(weight, turn, at, first, load, also)  \
    first                                                     \
    "ldr r2, [r1, #" weight "]\n"                             \
    "ldr r12, [r0, #" at "]\n"                                \
    "sxtb16 r2, r2" turn "\n"                                 \
    "ldr lr, [r0, #" at "+4]\n"                               \
    TNF_SPARSE_SUM(at, load, also, "")
#define TNF_SPARSE_PAIRS(weight, first, load, step)           \
    first                                                     \
    "ldr r3, [r1, #" weight "]\n"                             \
    "ldr r12, [r0]\n"                                         \
    "sxtb16 r2, r3\n"                                         \
    "ldr lr, [r0, #4]\n"                                      \
    TNF_SPARSE_SUM("0", "", "ldr r12, [r0, #32]\n", "ldr lr, [r0, #36]\n") \
    "sxtb16 r2, r3, ror #8\n"                                 \
    load                                                      \
    TNF_SPARSE_SUM("32", "", step, "")
#else
#define TNF_SPARSE_PAIR(weight, turn, at, first, load, also)  \
    first                                                     \
    "ldr r2, [r1, #" weight "]\n"                             \
    "ldr r3, [r0, #" at "]\n"                                 \
    "ldr r12, [r0, #" at "+4]\n"                              \
    "ldr lr, [r0, #" at "+8]\n"                               \
    "sxtb16 r2, r2" turn "\n"                                 \
    "smlad r4, r3, r2, r4\n"                                  \
    "smlad r5, r12, r2, r5\n"                                 \
    "smlad r6, lr, r2, r6\n"                                  \
    "ldr r3, [r0, #" at "+12]\n"                              \
    "ldr r12, [r0, #" at "+16]\n"                             \
    "ldr lr, [r0, #" at "+20]\n"                              \
    "smlad r7, r3, r2, r7\n"                                  \
    "smlad r8, r12, r2, r8\n"                                 \
    "smlad r9, lr, r2, r9\n"                                  \
    "ldr r12, [r0, #" at "+24]\n"                             \
    "ldr lr, [r0, #" at "+28]\n"                              \
    load                                                      \
    "smlad r10, r12, r2, r10\n"                               \
    also                                                      \
    "smlad r11, lr, r2, r11\n"
#define TNF_SPARSE_PAIRS(weight, first, load, step)           \
    TNF_SPARSE_PAIR(weight, "", "0", first, "", "")           \
    TNF_SPARSE_PAIR(weight, ", ror #8", "32", "", load, step)
#endif

/* The step to the first block of a whole group; the others' are made in the block before. */
#define TNF_SPARSE_FIRST(step)        \
    ".if \\k == 0\n"                  \
    "add r0, r0, r3, lsl #" step "\n" \
    ".endif\n"

/* After three blocks of a group the next distance, and a step there; after the last, where the channel's stream ends. */
#define TNF_SPARSE_LOAD(distances)                  \
    ".if \\k < 3\n"                                 \
    "ldrb r3, [r1, #" distances "+\\k+1]\n"         \
    ".else\n"                                       \
    "ldr r3, [sp, #20]\n"                           \
    ".endif\n"
#define TNF_SPARSE_STEP(step)                       \
    ".if \\k < 3\n"                                 \
    "add r0, r0, r3, lsl #" step "\n"               \
    ".endif\n"

/* Enter a group at its k-th block, the first that is there: `absent` bytes before it are left out. */
#define TNF_SPARSE_ENTER(k, absent, distances, step)    \
    "ldrb r3, [r1, #" distances "+" k "-" absent "]\n"  \
    "sub r1, #" absent "\n"                             \
    "add r0, r0, r3, lsl #" step "\n"                   \
    "b 2" k "b\n"

/* Saturate and store the rows' bytes: r0 the first, lr from one to the next. Cores that issue one instruction at a time store faster
 * without an index. */
#ifdef TNF_DUAL_ISSUE
#define TNF_SPARSE_STORES             \
    "ssat r4, #8, r4\n"               \
    "add r3, lr, lr, lsl #1\n"        \
    "ssat r5, #8, r5\n"               \
    "add r2, r0, lr\n"                \
    "ssat r6, #8, r6\n"               \
    "strb r4, [r0]\n"                 \
    "ssat r7, #8, r7\n"               \
    "strb r5, [r0, lr]\n"             \
    "ssat r8, #8, r8\n"               \
    "strb r6, [r0, lr, lsl #1]\n"     \
    "ssat r9, #8, r9\n"               \
    "strb r7, [r0, r3]\n"             \
    "ssat r10, #8, r10\n"             \
    "strb r8, [r0, lr, lsl #2]\n"     \
    "ssat r11, #8, r11\n"             \
    "strb r9, [r2, lr, lsl #2]\n"     \
    "strb r10, [r0, r3, lsl #1]\n"    \
    "strb r11, [r2, r3, lsl #1]\n"
#else
#define TNF_SPARSE_STORE(sum, next)   \
    "strb r" sum ", [r2]\n"           \
    "add r2, r2, lr\n"                \
    "ssat r" next ", #8, r" next "\n"
#define TNF_SPARSE_STORES             \
    "ssat r4, #8, r4\n"               \
    "add r2, r0, lr\n"                \
    "ssat r5, #8, r5\n"               \
    "strb r4, [r0]\n"                 \
    "ssat r6, #8, r6\n"               \
    TNF_SPARSE_STORE("5", "7")        \
    TNF_SPARSE_STORE("6", "8")        \
    TNF_SPARSE_STORE("7", "9")        \
    TNF_SPARSE_STORE("8", "10")       \
    TNF_SPARSE_STORE("9", "11")       \
    "strb r10, [r2]\n"                \
    "strb r11, [r2, lr]\n"
#endif

/* A group holds four blocks: `group` bytes, the last four of them distances. A channel begins with what is left over from whole
 * groups: its blocks are the last of a group of which the first words are left out. `bytes` makes of r3, the channel's blocks, those
 * of its stream in r12, but for what fills up its first group. On the stack: y, last, single, channel, stride; where the channel's stream
 * ends; the walk, tile, rounded_twice, sums. */
#define TNF_SPARSE_WALK(block, bytes, distances, group, step, absent1, absent2, absent3) \
    "push {r4-r11, lr}\n"                                                         \
    "ldm r0, {r1-r9}\n"                                                           \
    "push {r0, r6-r8}\n"                                                          \
    "sub sp, #4\n"                                                                \
    "push {r1-r5}\n"                                                              \
    "mov r1, r9\n"                                                                \
    "mov r12, r4\n"                                                               \
    "1:\n" /* a channel: r12 its record */                                        \
    "ldr r4, [r12]\n"                                                             \
    "ldr r3, [r12, #8]\n"                                                         \
    "ldr r0, [sp, #28]\n"                                                         \
    "mov r5, r4\n"                                                                \
    "lsrs r3, r3, #8\n" /* blocks */                                              \
    ".irp sum, 6, 7, 8, 9, 10, 11\n"                                              \
    "mov r\\sum, r4\n"                                                            \
    ".endr\n"                                                                     \
    "beq 3f\n"                                                                    \
    bytes                                                                         \
    "lsls r3, r3, #31\n" /* carry: two blocks left over; minus: one */            \
    "add r12, r1\n"                                                               \
    "str r12, [sp, #20]\n"                                                        \
    "bcs 5f\n"                                                                    \
    "bmi 7f\n"                                                                    \
    "2:\n"                                                                        \
    "ldrb r3, [r1, #" distances "]\n"                                             \
    ".irp k, 0, 1, 2, 3\n"                                                        \
    "2\\k:\n"                                                                     \
    block                                                                         \
    ".endr\n"                                                                     \
    "add r1, #" group "\n"                                                        \
    "cmp r1, r3\n"                                                                \
    "blo 2b\n"                                                                    \
    "3:\n" /* the last step */                                                    \
    "ldm sp, {r0, r2, r3, r12, lr}\n"                                             \
    "cmp r3, #0\n"                                                                \
    "beq 8f\n"                                                                    \
    "cmp r12, r2\n"                                                               \
    "ldr r2, [r12, #4]\n"                                                         \
    "ldrsb r12, [r12, #8]\n"                                                      \
    "mvn r12, r12\n" /* -1 - shift */                                             \
    "lsl r3, r3, r12\n"                                                           \
    "asr r3, r3, #1\n"                                                            \
    "smmla r4, r4, r2, r3\n"                                                      \
    "smmla r5, r5, r2, r3\n"                                                      \
    "smmla r6, r6, r2, r3\n"                                                      \
    "asr r4, r4, r12\n"                                                           \
    "smmla r7, r7, r2, r3\n"                                                      \
    "asr r5, r5, r12\n"                                                           \
    "smmla r8, r8, r2, r3\n"                                                      \
    "asr r6, r6, r12\n"                                                           \
    "smmla r9, r9, r2, r3\n"                                                      \
    "asr r7, r7, r12\n"                                                           \
    "smmla r10, r10, r2, r3\n"                                                    \
    "asr r8, r8, r12\n"                                                           \
    "smmla r11, r11, r2, r3\n"                                                    \
    "asr r9, r9, r12\n"                                                           \
    "asr r10, r10, r12\n"                                                         \
    "asr r11, r11, r12\n"                                                         \
    "4:\n"                                                                        \
    TNF_SPARSE_STORES                                                             \
    "ldr r12, [sp, #12]\n"                                                        \
    "add r0, #1\n"                                                                \
    "str r0, [sp]\n"                                                              \
    "9:\n"                                                                        \
    "add r12, #12\n"                                                              \
    "str r12, [sp, #12]\n"                                                        \
    "bne 1b\n"                                                                    \
    "ldr r0, [sp, #24]\n"                                                         \
    "str r1, [r0, #32]\n"                                                         \
    "add sp, #40\n"                                                               \
    "pop {r4-r11, pc}\n"                                                          \
    "5:\n"                                                                        \
    "bmi 6f\n"                                                                    \
    TNF_SPARSE_ENTER("2", absent2, distances, step)                               \
    "6:\n"                                                                        \
    TNF_SPARSE_ENTER("1", absent1, distances, step)                               \
    "7:\n"                                                                        \
    TNF_SPARSE_ENTER("3", absent3, distances, step)                               \
    "8:\n"                                                                        \
    "ldr r3, [sp, #32]\n"                                                         \
    "cmp r3, #0\n"                                                                \
    "beq 8f\n"                                                                    \
    "cmp r12, r2\n"                                                               \
    "ldr r2, [r12, #4]\n"                                                         \
    "ldrsb r12, [r12, #8]\n"                                                      \
    "rsb r12, r12, #0\n" /* -shift */                                             \
    "lsl r3, r3, r12\n"                                                           \
    "asr r3, r3, #1\n"                                                            \
    "lsl r2, r2, #1\n" /* as tnf_double_requantize does it */                     \
    ".irp sum, 4, 5, 6, 7, 8, 9, 10, 11\n"                                        \
    "smmlar r\\sum, r\\sum, r2, r\\sum\n"                                          \
    ".endr\n"                                                                     \
    ".irp sum, 4, 5, 6, 7, 8, 9, 10, 11\n"                                        \
    "add r\\sum, r\\sum, r\\sum, asr #31\n"                                        \
    ".endr\n"                                                                     \
    ".irp sum, 4, 5, 6, 7, 8, 9, 10, 11\n"                                        \
    "qadd r\\sum, r\\sum, r3\n"                                                   \
    ".endr\n"                                                                     \
    ".irp sum, 4, 5, 6, 7, 8, 9, 10, 11\n"                                        \
    "asr r\\sum, r\\sum, r12\n"                                                   \
    ".endr\n"                                                                     \
    "b 4b\n"                                                                      \
    "8:\n"                                                                        \
    "cmp r12, r2\n"                                                               \
    "ldr r2, [sp, #36]\n"                                                         \
    "stm r2!, {r4-r11}\n"                                                         \
    "str r2, [sp, #36]\n"                                                         \
    "b 9b\n"                                                                      \

__attribute__((naked, noinline, unused)) static void tnf_sparse_walk4(tnf_sparse_walk *walk)
{
    __asm__(TNF_SPARSE_WALK(TNF_SPARSE_PAIRS("4*\\k", TNF_SPARSE_FIRST("6"), TNF_SPARSE_LOAD("16"), TNF_SPARSE_STEP("6")),
                            "add r12, r3, r3, lsl #2\n",
                            "16", "20", "6", "4", "8", "12"));
}

/* Two blocks share a word: bytes 0 and 2 are one's, 1 and 3 the other's. */
__attribute__((naked, noinline, unused)) static void tnf_sparse_walk2(tnf_sparse_walk *walk)
{
    __asm__(TNF_SPARSE_WALK(".if \\k % 2 == 0\n"
                            TNF_SPARSE_PAIR("2*\\k", "", "0", TNF_SPARSE_FIRST("5"), TNF_SPARSE_LOAD("8"), TNF_SPARSE_STEP("5"))
                            ".else\n"
                            TNF_SPARSE_PAIR("2*\\k-2", ", ror #8", "0", "", TNF_SPARSE_LOAD("8"), TNF_SPARSE_STEP("5"))
                            ".endif\n",
                            "add r12, r3, r3, lsl #1\n",
                            "8", "12", "5", "0", "4", "4"));
}

/* One weight for all rows, two of which share a word. */
#ifdef TNF_DUAL_ISSUE
#define TNF_SPARSE_SINGLE(first, load, also) \
    "ldrsb r2, [r1, #\\k]\n"                 \
    first                                    \
    "ldr r12, [r0]\n"                        \
    "ldr lr, [r0, #4]\n"                     \
    load                                     \
    "smlabb r4, r12, r2, r4\n"               \
    "smlatb r5, r12, r2, r5\n"               \
    "ldr r12, [r0, #8]\n"                    \
    "smlabb r6, lr, r2, r6\n"                \
    "smlatb r7, lr, r2, r7\n"                \
    "ldr lr, [r0, #12]\n"                    \
    "smlabb r8, r12, r2, r8\n"               \
    "smlatb r9, r12, r2, r9\n"               \
    also                                     \
    "smlabb r10, lr, r2, r10\n"              \
    "smlatb r11, lr, r2, r11\n"
#else
#define TNF_SPARSE_SINGLE(first, load, also) \
    first                                    \
    "ldrsb r2, [r1, #\\k]\n"                 \
    "ldr r12, [r0]\n"                        \
    "ldr lr, [r0, #4]\n"                     \
    "smlabb r4, r12, r2, r4\n"               \
    "smlatb r5, r12, r2, r5\n"               \
    "smlabb r6, lr, r2, r6\n"                \
    "smlatb r7, lr, r2, r7\n"                \
    "ldr r12, [r0, #8]\n"                    \
    "ldr lr, [r0, #12]\n"                    \
    load                                     \
    "smlabb r8, r12, r2, r8\n"               \
    "smlatb r9, r12, r2, r9\n"               \
    also                                     \
    "smlabb r10, lr, r2, r10\n"              \
    "smlatb r11, lr, r2, r11\n"
#endif

__attribute__((naked, noinline, unused)) static void tnf_sparse_walk1(tnf_sparse_walk *walk)
{
    __asm__(TNF_SPARSE_WALK(TNF_SPARSE_SINGLE(TNF_SPARSE_FIRST("4"), TNF_SPARSE_LOAD("4"), TNF_SPARSE_STEP("4")),
                            "lsl r12, r3, #1\n",
                            "4", "8", "4", "0", "0", "0"));
}

static inline void tnf_sparse_walk_channels(tnf_sparse_walk *walk, int32_t block)
{
    if (block == 4) {
        tnf_sparse_walk4(walk);
    } else if (block == 2) {
        tnf_sparse_walk2(walk);
    } else {
        tnf_sparse_walk1(walk);
    }
}

#else

/* sums += a pair of weights, bytes 0 and 2 of a word, times each row's operands. */
static inline void tnf_sparse_pairs(int32_t *sums, const uint32_t *operands, uint32_t bytes)
{
    const int32_t first = (int8_t)(uint8_t)(bytes & 0xFFu), second = (int8_t)(uint8_t)(bytes >> 16 & 0xFFu);
    int32_t row;
    for (row = 0; row < TNF_SPARSE_ROWS; row++) {
        const uint32_t x = operands[row];
        sums[row] += (int16_t)(uint16_t)(x & 0xFFFFu) * first + (int16_t)(uint16_t)(x >> 16) * second;
    }
}

/* sums += a weight, the lowest byte of a word, times each row's activation. */
static inline void tnf_sparse_single(int32_t *sums, const uint32_t *operands, uint32_t byte)
{
    const int16_t *x = (const int16_t *)(const void *)operands;
    int32_t row;
    for (row = 0; row < TNF_SPARSE_ROWS; row++) {
        sums[row] += x[row] * tnf_byte(byte, 0);
    }
}

static inline void tnf_sparse_walk_channels(tnf_sparse_walk *walk, int32_t block)
{
    const int32_t *record;
    for (record = walk->channel; record != walk->last + TNF_SPARSE_CHANNEL; record += TNF_SPARSE_CHANNEL) {
        const int32_t blocks = (int32_t)((uint32_t)record[2] >> 8);
        const uint32_t *operands = walk->tile;
        int32_t sums[TNF_SPARSE_ROWS];
        int32_t row;
        for (row = 0; row < TNF_SPARSE_ROWS; row++) {
            sums[row] = record[0];
        }
        int32_t first = -blocks & 3; /* so many slots of the first group are left out, and their words with them */
        int32_t left, slot;
        for (left = blocks; left > 0; left -= slot) {
            const uint32_t *words = walk->stream;
            const int32_t absent = first * block / 4;
            const uint32_t distances = words[block - absent];
            for (slot = first; slot < 4; slot++) {
                const uint32_t weights = words[slot * block / 4 - absent];
                operands += (int32_t)(distances >> (8 * slot) & 0xFFu) * block * (TNF_SPARSE_ROWS / 2);
                if (block == 4) {
                    tnf_sparse_pairs(sums, operands, weights);
                    tnf_sparse_pairs(sums, operands + TNF_SPARSE_ROWS, weights >> 8);
                } else if (block == 2) {
                    tnf_sparse_pairs(sums, operands, weights >> (8 * (slot & 1)));
                } else {
                    tnf_sparse_single(sums, operands, weights >> (8 * slot));
                }
            }
            walk->stream += block + 1 - absent;
            slot -= first;
            first = 0;
        }
        if (walk->sums != 0) {
            for (row = 0; row < TNF_SPARSE_ROWS; row++) {
                *walk->sums++ = sums[row];
            }
        } else {
            const int32_t shift = tnf_byte((uint32_t)record[2], 0);
            const int32_t rounding = walk->single != 0 ? TNF_ROUNDING_SINGLE : TNF_ROUNDING_DOUBLE;
            const tnf_quick_scale scale = tnf_scale_of(record[1], shift, (walk->single + walk->rounded_twice - 1) / 2, rounding);
            for (row = 0; row < TNF_SPARSE_ROWS; row++) {
                walk->y[row * walk->stride] = (int8_t)tnf_ssat8(tnf_scaled(sums[row], scale, rounding));
            }
            walk->y++;
        }
    }
}

#endif

/* What both kernels' parameters say of the output. */
typedef struct {
    const int32_t *channel;
    const int32_t *weight;
    int32_t output_c, block;
    int32_t zero_point, act_min, act_max, rounding, quick;
} tnf_sparse_layer;

#define TNF_SPARSE_LAYER(p)                                                                                                    \
    {                                                                                                                          \
        (p)->channel, (p)->weight, (p)->output_c, (p)->block, (p)->output_zero_point, (p)->act_min, (p)->act_max, (p)->rounding, \
            (p)->quick                                                                                                         \
    }

/* Output channels between two visits to their sums: few enough for the stack. */
#define TNF_SPARSE_SUMS 8

static inline void tnf_sparse_finish(const tnf_sparse_layer *layer, const int32_t *record, const int32_t *sums, int32_t rows, int8_t *y)
{
    const int32_t shift = tnf_byte((uint32_t)record[2], 0);
    int32_t row;
    if (tnf_is_quick(shift, layer->rounding)) {
        const tnf_quick_scale scale = tnf_scale_of(record[1], shift, layer->zero_point, layer->rounding);
        for (row = 0; row < rows; row++) {
            *y = (int8_t)tnf_clamp(tnf_scaled(sums[row], scale, layer->rounding), layer->act_min, layer->act_max);
            y += layer->output_c;
        }
    } else {
        for (row = 0; row < rows; row++) {
            *y = tnf_requantize_to_int8(sums[row], record[1], shift, layer->rounding, layer->zero_point, layer->act_min, layer->act_max);
            y += layer->output_c;
        }
    }
}

/* How many channels from a record on the quick last step serves. */
static inline int32_t tnf_sparse_quick(const tnf_sparse_layer *layer, const int32_t *record, int32_t channels)
{
    int32_t n = 0;
    if (layer->quick) {
        return channels;
    }
    while (n < channels && tnf_is_quick(tnf_byte((uint32_t)record[n * TNF_SPARSE_CHANNEL + 2], 0), layer->rounding)) {
        n++;
    }
    return n;
}

/* Clamp n bytes that any int8 may be; `above` where the highest is below 127. */
TNF_COPIED void tnf_sparse_clamp(int8_t *y, int32_t n, int32_t lo, int32_t hi, int32_t above)
{
    const uint32_t lo4 = tnf_repeat4(lo), hi4 = tnf_repeat4(hi);
    for (; n >= 8; n -= 8) {
        const uint32_t first = tnf_max4(tnf_load4(y), lo4), second = tnf_max4(tnf_load4(y + 4), lo4);
        tnf_store4(y, above ? tnf_min4(first, hi4) : first);
        tnf_store4(y + 4, above ? tnf_min4(second, hi4) : second);
        y += 8;
    }
    for (; n > 0; n--) {
        *y = (int8_t)tnf_clamp(*y, lo, hi);
        y++;
    }
}

/* All outputs of the first `rows` rows of a tile: y [rows][output_c]. */
TNF_OWN_FUNCTION void tnf_sparse_tile(const tnf_sparse_layer *layer, const uint32_t *tile, int32_t rows, int8_t *y)
{
    const int32_t term = 2 * layer->zero_point + 1, twice = layer->rounding == TNF_ROUNDING_DOUBLE;
    int32_t sums[TNF_SPARSE_SUMS * TNF_SPARSE_ROWS];
    tnf_sparse_walk walk;
    int32_t first, channel, count;
    walk.tile = tile;
    walk.stream = (const uint32_t *)layer->weight;
    walk.stride = layer->output_c;
    for (first = 0; first < layer->output_c; first += count) {
        const int32_t *record = layer->channel + first * TNF_SPARSE_CHANNEL;
        const int32_t left = layer->output_c - first;
        const int32_t quick = rows == TNF_SPARSE_ROWS ? tnf_sparse_quick(layer, record, left) : 0;
        for (count = quick; count < left && count < TNF_SPARSE_SUMS && !quick; count++) {
            if (rows == TNF_SPARSE_ROWS && tnf_sparse_quick(layer, record + count * TNF_SPARSE_CHANNEL, 1)) {
                break;
            }
        }
        walk.channel = record;
        walk.last = record + (count - 1) * TNF_SPARSE_CHANNEL;
        walk.y = y + first;
        walk.single = quick && !twice ? term : 0;
        walk.rounded_twice = quick && twice ? term : 0;
        walk.sums = quick ? 0 : sums;
        tnf_sparse_walk_channels(&walk, layer->block);
        for (channel = 0; channel < count && !quick; channel++) {
            tnf_sparse_finish(layer, record + channel * TNF_SPARSE_CHANNEL, sums + channel * TNF_SPARSE_ROWS, rows, y + first + channel);
        }
    }
    if (layer->act_max != 127) {
        tnf_sparse_clamp(y, rows * layer->output_c, layer->act_min, layer->act_max, 1);
    } else if (layer->act_min != -128) {
        tnf_sparse_clamp(y, rows * layer->output_c, layer->act_min, 127, 0);
    }
}

/* ---- a single row ---- */

#if TNF_DSP_INSTRUCTIONS

/* The sum of a channel's blocks: r0 its stream, r1 the row, r2 blocks, r3 the sum so far. r5, r6, r7 and lr tell where a group's blocks lie
 * in the row. The first group is entered behind the blocks that it lacks, r4 of them, at distance 0: `back` moves r0 to where the
 * group would begin. */
#define TNF_SPARSE_PLACES(distances)  \
    "ldr r9, [r0, #" distances "]\n"  \
    "uxtab r5, lr, r9\n"              \
    "uxtab r6, r5, r9, ror #8\n"      \
    "uxtab r7, r6, r9, ror #16\n"     \
    "uxtab lr, r7, r9, ror #24\n"
#define TNF_SPARSE_CHANNEL_SUM(first, second, third, fourth, back, distances, group) \
    "push {r4-r10, lr}\n"            \
    "rsb r4, r2, #0\n"               \
    "add r2, #3\n"                   \
    "mov lr, #0\n"                   \
    "lsrs r2, r2, #2\n"              \
    "beq 3f\n"                       \
    "ands r4, r4, #3\n"              \
    "add r12, r1, #4\n"              \
    "beq 2f\n"                       \
    back                             \
    TNF_SPARSE_PLACES(distances)     \
    "cmp r4, #2\n"                   \
    "blo 4f\n"                       \
    "beq 5f\n"                       \
    "b 6f\n"                         \
    "2:\n"                           \
    TNF_SPARSE_PLACES(distances)     \
    first                            \
    "4:\n"                           \
    second                           \
    "5:\n"                           \
    third                            \
    "6:\n"                           \
    fourth                           \
    "subs r2, #1\n"                  \
    "add r0, #" group "\n"           \
    "bne 2b\n"                       \
    "3:\n"                           \
    "mov r0, r3\n"                   \
    "pop {r4-r10, pc}\n"

#ifdef TNF_DUAL_ISSUE
#define TNF_SPARSE_FOUR(offset, at)   \
    "ldr r4, [r0, #" offset "]\n"     \
    "ldr r9, [r1, " at ", lsl #3]\n"  \
    "sxtb16 r8, r4\n"                 \
    "ldr r10, [r12, " at ", lsl #3]\n" \
    "sxtb16 r4, r4, ror #8\n"         \
    "smlad r3, r9, r8, r3\n"          \
    "smlad r3, r10, r4, r3\n"
#else
#define TNF_SPARSE_FOUR(offset, at)   \
    "ldr r4, [r0, #" offset "]\n"     \
    "ldr r9, [r1, " at ", lsl #3]\n"  \
    "ldr r10, [r12, " at ", lsl #3]\n" \
    "sxtb16 r8, r4\n"                 \
    "sxtb16 r4, r4, ror #8\n"         \
    "smlad r3, r9, r8, r3\n"          \
    "smlad r3, r10, r4, r3\n"
#endif
#define TNF_SPARSE_TWO(offset, turn, at) \
    "ldr r4, [r0, #" offset "]\n"        \
    "ldr r9, [r1, " at ", lsl #2]\n"     \
    "sxtb16 r4, r4" turn "\n"            \
    "smlad r3, r9, r4, r3\n"
#define TNF_SPARSE_ONE(offset, at)    \
    "ldrsb r4, [r0, #" offset "]\n"   \
    "ldrsh r9, [r1, " at ", lsl #1]\n" \
    "smlabb r3, r9, r4, r3\n"

__attribute__((naked, noinline, unused)) static int32_t tnf_sparse_sum4(const uint32_t *stream, const void *row, int32_t blocks, int32_t sum)
{
    __asm__(TNF_SPARSE_CHANNEL_SUM(TNF_SPARSE_FOUR("0", "r5"), TNF_SPARSE_FOUR("4", "r6"), TNF_SPARSE_FOUR("8", "r7"),
                                   TNF_SPARSE_FOUR("12", "lr"), "sub r0, r0, r4, lsl #2\n", "16", "20"));
}

__attribute__((naked, noinline, unused)) static int32_t tnf_sparse_sum2(const uint32_t *stream, const void *row, int32_t blocks, int32_t sum)
{
    __asm__(TNF_SPARSE_CHANNEL_SUM(TNF_SPARSE_TWO("0", "", "r5"), TNF_SPARSE_TWO("0", ", ror #8", "r6"), TNF_SPARSE_TWO("4", "", "r7"),
                                   TNF_SPARSE_TWO("4", ", ror #8", "lr"),
                                   "lsr r5, r4, #1\n"
                                   "sub r0, r0, r5, lsl #2\n",
                                   "8", "12"));
}

__attribute__((naked, noinline, unused)) static int32_t tnf_sparse_sum1(const uint32_t *stream, const void *row, int32_t blocks, int32_t sum)
{
    __asm__(TNF_SPARSE_CHANNEL_SUM(TNF_SPARSE_ONE("0", "r5"), TNF_SPARSE_ONE("1", "r6"), TNF_SPARSE_ONE("2", "r7"),
                                   TNF_SPARSE_ONE("3", "lr"), "", "4", "8"));
}

static inline int32_t tnf_sparse_channel(const uint32_t *stream, const void *row, int32_t blocks, int32_t block, int32_t sum)
{
    return block == 4   ? tnf_sparse_sum4(stream, row, blocks, sum)
           : block == 2 ? tnf_sparse_sum2(stream, row, blocks, sum)
                        : tnf_sparse_sum1(stream, row, blocks, sum);
}

#else

/* sum + a channel's blocks times the row. */
static inline int32_t tnf_sparse_channel(const uint32_t *stream, const void *row, int32_t blocks, int32_t block, int32_t sum)
{
    int32_t slot = -blocks & 3, at = 0;
    int32_t absent = slot * block / 4; /* words that the first group lacks */
    for (; blocks > 0; slot = 0) {
        const uint32_t distances = stream[block - absent];
        for (; slot < 4; slot++) {
            const uint32_t weights = stream[slot * block / 4 - absent];
            at += (int32_t)(distances >> 8 * slot & 0xFFu);
            if (block == 4) {
                const uint32_t *x = (const uint32_t *)row + 2 * at;
                sum = tnf_smlad(x[1], tnf_odd_pair(weights), tnf_smlad(x[0], tnf_even_pair(weights), sum));
            } else if (block == 2) {
                sum = tnf_smlad(((const uint32_t *)row)[at], tnf_even_pair(weights >> 8 * (slot & 1)), sum);
            } else {
                sum += ((const int16_t *)row)[at] * tnf_byte(weights, slot);
            }
            blocks--;
        }
        stream += block + 1 - absent;
        absent = 0;
    }
    return sum;
}

#endif

/* All outputs of a row: y [output_c]. */
TNF_OWN_FUNCTION void tnf_sparse_single_row(const tnf_sparse_layer *layer, const void *row, int8_t *y)
{
    const int32_t *record = layer->channel, *end = record + layer->output_c * TNF_SPARSE_CHANNEL;
    const uint32_t *stream = (const uint32_t *)layer->weight;
    const int32_t block = layer->block, zero_point = layer->zero_point, lo = layer->act_min, hi = layer->act_max;
    const int32_t quick = layer->quick && layer->rounding != TNF_ROUNDING_DOUBLE;
    for (; record != end; record += TNF_SPARSE_CHANNEL) {
        const int32_t blocks = (int32_t)((uint32_t)record[2] >> 8);
        const int32_t sum = tnf_sparse_channel(stream, row, blocks, block, record[0]);
        if (quick) {
            const tnf_quick_scale scale = tnf_quick_scale_of(record[1], tnf_byte((uint32_t)record[2], 0), zero_point);
            *y = (int8_t)tnf_clamp(tnf_quick_requantize(sum, scale), lo, hi);
        } else {
            tnf_sparse_finish(layer, record, &sum, 1, y);
        }
        stream += ((blocks + 3) >> 2) * (block + 1) - (((-blocks & 3) * block) >> 2);
        y++;
    }
}

#endif
