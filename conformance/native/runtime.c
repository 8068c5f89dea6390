/* The memory functions that a freestanding compiler may call for plain C, by their C and run-time ABI names.
 *
 * Word at a time where both pointers allow it. The empty asm statements stop the compiler from recognising a loop as the very
 * function that the loop implements.
 */
#include <stddef.h>
#include <stdint.h>

#define OPAQUE() __asm__ volatile("" : : : "memory")
typedef uint32_t __attribute__((may_alias)) word_t;

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *left, const void *right, size_t size);
void __aeabi_memcpy(void *to, const void *from, size_t size);
void __aeabi_memcpy4(void *to, const void *from, size_t size);
void __aeabi_memcpy8(void *to, const void *from, size_t size);
void __aeabi_memmove(void *to, const void *from, size_t size);
void __aeabi_memmove4(void *to, const void *from, size_t size);
void __aeabi_memmove8(void *to, const void *from, size_t size);
void __aeabi_memset(void *to, size_t size, int value);
void __aeabi_memset4(void *to, size_t size, int value);
void __aeabi_memset8(void *to, size_t size, int value);
void __aeabi_memclr(void *to, size_t size);
void __aeabi_memclr4(void *to, size_t size);
void __aeabi_memclr8(void *to, size_t size);

static void copy_up(unsigned char *to, const unsigned char *from, size_t size)
{
    if ((((uintptr_t)to | (uintptr_t)from) & 3u) == 0u) {
        word_t *to_word = (word_t *)(void *)to;
        const word_t *from_word = (const word_t *)(const void *)from;
        for (; size >= 16u; size -= 16u, to_word += 4, from_word += 4) {
            const uint32_t a = from_word[0], b = from_word[1], c = from_word[2], d = from_word[3];
            to_word[0] = a;
            to_word[1] = b;
            to_word[2] = c;
            to_word[3] = d;
            OPAQUE();
        }
        for (; size >= 4u; size -= 4u) {
            *to_word++ = *from_word++;
            OPAQUE();
        }
        to = (unsigned char *)to_word;
        from = (const unsigned char *)from_word;
    }
    while (size-- != 0u) {
        *to++ = *from++;
        OPAQUE();
    }
}

static void fill(unsigned char *to, unsigned char value, size_t size)
{
    if (((uintptr_t)to & 3u) == 0u) {
        const uint32_t word = value * 0x01010101u;
        word_t *to_word = (word_t *)(void *)to;
        for (; size >= 16u; size -= 16u, to_word += 4) {
            to_word[0] = word;
            to_word[1] = word;
            to_word[2] = word;
            to_word[3] = word;
            OPAQUE();
        }
        to = (unsigned char *)to_word;
    }
    while (size-- != 0u) {
        *to++ = value;
        OPAQUE();
    }
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    copy_up(to, from, size);
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    unsigned char *target = to;
    const unsigned char *source = from;
    if ((uintptr_t)target - (uintptr_t)source >= size) {
        copy_up(target, source, size);
    } else {
        while (size-- != 0u) {
            target[size] = source[size];
            OPAQUE();
        }
    }
    return to;
}

void *memset(void *to, int value, size_t size)
{
    fill(to, (unsigned char)value, size);
    return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
    const unsigned char *a = left, *b = right;
    for (; size-- != 0u; a++, b++) {
        if (*a != *b) {
            return (int)*a - (int)*b;
        }
        OPAQUE();
    }
    return 0;
}

void __aeabi_memcpy(void *to, const void *from, size_t size) { copy_up(to, from, size); }
void __aeabi_memcpy4(void *to, const void *from, size_t size) { copy_up(to, from, size); }
void __aeabi_memcpy8(void *to, const void *from, size_t size) { copy_up(to, from, size); }
void __aeabi_memmove(void *to, const void *from, size_t size) { memmove(to, from, size); }
void __aeabi_memmove4(void *to, const void *from, size_t size) { memmove(to, from, size); }
void __aeabi_memmove8(void *to, const void *from, size_t size) { memmove(to, from, size); }
void __aeabi_memset(void *to, size_t size, int value) { fill(to, (unsigned char)value, size); }
void __aeabi_memset4(void *to, size_t size, int value) { fill(to, (unsigned char)value, size); }
void __aeabi_memset8(void *to, size_t size, int value) { fill(to, (unsigned char)value, size); }
void __aeabi_memclr(void *to, size_t size) { fill(to, 0u, size); }
void __aeabi_memclr4(void *to, size_t size) { fill(to, 0u, size); }
void __aeabi_memclr8(void *to, size_t size) { fill(to, 0u, size); }
