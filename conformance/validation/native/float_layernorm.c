#include "dense.h"

static inline float square_root(float x)
{
#if defined(__ARM_FP)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
#else
    return __builtin_sqrtf(x);
#endif
}

/* Newton's iteration from the exponent halved: there is no mathematical library in a verification image. */
static double double_square_root(double x)
{
    union {
        double value;
        uint64_t bits;
    } guess = {x};
    guess.bits = (guess.bits >> 1) + 0x1FF8000000000000u;
    for (int i = 0; i < 5; i++) {
        guess.value = 0.5 * (guess.value + x / guess.value);
    }
    return guess.value;
}

void tnf_float_layernorm(const float *x, float *y, const float *gamma, const float *beta, int32_t rows, int32_t n)
{
    for (int32_t row = 0; row < rows; row++, x += n, y += n) {
        float sum = 0.0f, squares = 0.0f;
        for (int32_t i = 0; i < n; i++) {
            sum += x[i];
        }
        const float mean = sum / (float)n;
        for (int32_t i = 0; i < n; i++) {
            squares += (x[i] - mean) * (x[i] - mean);
        }
        const float deviation = square_root(squares / (float)n + 1e-5f);
        for (int32_t i = 0; i < n; i++) {
            y[i] = (x[i] - mean) / deviation * gamma[i] + beta[i];
        }
    }
}

void tnf_double_layernorm(const float *x, float *y, const float *gamma, const float *beta, int32_t rows, int32_t n)
{
    for (int32_t row = 0; row < rows; row++, x += n, y += n) {
        double sum = 0.0, squares = 0.0;
        for (int32_t i = 0; i < n; i++) {
            sum += (double)x[i];
        }
        const double mean = sum / n;
        for (int32_t i = 0; i < n; i++) {
            squares += ((double)x[i] - mean) * ((double)x[i] - mean);
        }
        const double variance = squares / n;
        for (int32_t i = 0; i < n; i++) {
            y[i] = (float)(((double)x[i] - mean) / double_square_root(variance + 1e-5) * (double)gamma[i] + (double)beta[i]);
        }
    }
}
