/* The primitives that kernels are made of, each called directly. Inside a kernel their last bits hardly ever reach an int8.
 *
 * x holds the arguments of each call as 32-bit words, the lowest byte first and at any address; y receives one word for each. A list
 * says what is called with which of a row's words (I signed, U unsigned, W two of them, the high one first). Arguments are legal: what C
 * leaves undefined is not asked for.
 */
#include "tinyformer/dsp.h"
#include "tinyformer/numerics.h"

#include "primitives.h"

/* PRIMITIVE(name, words of a row, call) */
#define PRIMITIVES                                                                                                   \
    PRIMITIVE(clamp, 3, tnf_clamp(I(0), I(1), I(2)))                                                                 \
    PRIMITIVE(sat16, 1, tnf_sat16(I(0)))                                                                             \
    PRIMITIVE(sat32, 2, tnf_sat32((int64_t)W(0)))                                                                    \
    PRIMITIVE(srdhm, 2, tnf_srdhm_unsaturated(I(0), I(1)))                                                           \
    PRIMITIVE(rdbpot, 2, tnf_rdbpot(I(0), I(1)))                                                                     \
    PRIMITIVE(rdbpot_unsigned, 2, tnf_rdbpot_unsigned(U(0), I(1)))                                                   \
    PRIMITIVE(multiply_high, 3, tnf_multiply_high(I(0), I(1), I(2)))                                                 \
    PRIMITIVE(requantize_value, 4, tnf_requantize_value(I(0), I(1), I(2), I(3)))                                     \
    PRIMITIVE(requantize_to_int8, 7, tnf_requantize_to_int8(I(0), I(1), I(2), I(3), I(4), I(5), I(6)))               \
    PRIMITIVE(leading_zeros, 1, tnf_leading_zeros(U(0)))                                                             \
    PRIMITIVE(leading_zeros64, 2, tnf_leading_zeros64(W(0)))                                                         \
    PRIMITIVE(isqrt, 2, (int32_t)tnf_isqrt(W(0)))                                                                    \
    PRIMITIVE(divide_2_61, 1, (int32_t)tnf_divide_2_61(U(0)))                                                        \
    PRIMITIVE(exp_negative, 1, tnf_exp_negative(I(0)))                                                               \
    PRIMITIVE(normalise, 7, normalise(I(0), I(1), I(2), I(3), I(4), I(5), I(6)))                                     \
    PRIMITIVE(softmax_exponential, 4, tnf_softmax_exponential(I(0), I(1), I(2), I(3)))                               \
    PRIMITIVE(reciprocal, 1, tnf_reciprocal(I(0)))                                                                   \
    PRIMITIVE(window_first, 2, tnf_window_first(I(0), I(1)))                                                         \
    PRIMITIVE(window_end, 4, tnf_window_end(I(0), I(1), I(2), I(3)))                                                 \
    PRIMITIVE(load4, 1, (int32_t)tnf_load4(x))                                                                       \
    PRIMITIVE(store4, 1, stored(U(0)))                                                                               \
    PRIMITIVE(even_pair, 1, (int32_t)tnf_even_pair(U(0)))                                                            \
    PRIMITIVE(odd_pair, 1, (int32_t)tnf_odd_pair(U(0)))                                                              \
    PRIMITIVE(even_pair_plus, 2, (int32_t)tnf_even_pair_plus(U(0), U(1)))                                            \
    PRIMITIVE(odd_pair_plus, 2, (int32_t)tnf_odd_pair_plus(U(0), U(1)))                                              \
    PRIMITIVE(low_halves, 2, (int32_t)tnf_low_halves(U(0), U(1)))                                                    \
    PRIMITIVE(high_halves, 2, (int32_t)tnf_high_halves(U(0), U(1)))                                                  \
    PRIMITIVE(smlad, 3, tnf_smlad(U(0), U(1), I(2)))                                                                 \
    PRIMITIVE(smmla, 3, tnf_smmla(I(0), I(1), I(2)))                                                                 \
    PRIMITIVE(smmlar, 3, tnf_smmlar(I(0), I(1), I(2)))                                                               \
    PRIMITIVE(max4, 2, (int32_t)tnf_max4(U(0), U(1)))                                                                \
    PRIMITIVE(min4, 2, (int32_t)tnf_min4(U(0), U(1)))                                                                \
    PRIMITIVE(clamp4, 3, (int32_t)tnf_clamp4(U(0), U(1), U(2)))                                                      \
    PRIMITIVE(pack4, 4, (int32_t)tnf_pack4(I(0), I(1), I(2), I(3)))                                                  \
    PRIMITIVE(byte, 2, tnf_byte(U(0), I(1)))                                                                         \
    PRIMITIVE(byte_plus, 3, tnf_byte_plus(I(0), U(1), I(2)))                                                         \
    PRIMITIVE(repeat4, 1, (int32_t)tnf_repeat4(I(0)))                                                                \
    PRIMITIVE(ssat8, 1, tnf_ssat8(I(0)))                                                                             \
    PRIMITIVE(ssat16, 1, tnf_ssat16(I(0)))                                                                           \
    PRIMITIVE(qadd, 2, tnf_qadd(I(0), I(1)))                                                                         \
    PRIMITIVE(usat8_pair, 1, (int32_t)tnf_usat8_pair(U(0)))                                                          \
    PRIMITIVE(is_quick, 2, tnf_is_quick(I(0), I(1)))                                                                 \
    PRIMITIVE(quick_step, 5, tnf_ssat8(tnf_scaled(I(0), tnf_scale_of(I(1), I(2), I(3), I(4)), I(4))))

static uint32_t word(const int8_t *x)
{
    return (uint32_t)(uint8_t)x[0] | (uint32_t)(uint8_t)x[1] << 8 | (uint32_t)(uint8_t)x[2] << 16 | (uint32_t)(uint8_t)x[3] << 24;
}

static void put(int8_t *y, int32_t value)
{
    int32_t i;
    for (i = 0; i < 4; i++) {
        y[i] = (int8_t)(uint8_t)((uint32_t)value >> 8 * i & 0xFFu);
    }
}

#define U(k) word(x + 4 * (k))
#define I(k) ((int32_t)U(k))
#define W(k) ((uint64_t)U(k) << 32 | U((k) + 1))

/* LayerNorm's h of one element, before it is saturated. */
static int32_t normalise(int32_t element, int32_t sum, int32_t squares, int32_t n, int32_t scale_bits, int32_t epsilon_low,
                         int32_t epsilon_high)
{
    tnf_layernorm_scale scale;
    tnf_layernorm_scale_of(&scale, sum, squares, n, scale_bits, epsilon_low, epsilon_high);
    return tnf_multiply_high((n * element - scale.sum) * scale.prescale, scale.reciprocal, scale.right);
}

static int32_t stored(uint32_t bytes)
{
    int8_t at[5];
    tnf_store4(at + 1, bytes);
    return (int32_t)word(at + 1);
}

#define PRIMITIVE(name, words, call) function_##name,
enum { PRIMITIVES function_count };
#undef PRIMITIVE

#define PRIMITIVE(name, words, call)         \
    case function_##name:                    \
        for (row = 0; row < p->rows; row++) { \
            put(y, call);                    \
            x += 4 * (words);                \
            y += 4;                          \
        }                                    \
        break;

void tnf_primitives(const tnf_primitives_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    int32_t row;
    (void)scratch;
    switch (p->function) {
        PRIMITIVES
    default:
        break;
    }
}
