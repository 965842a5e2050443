/* Bare-metal driver of the accelerator. It allocates nothing and knows no operating system: registers and DMA
 * engines are functions of the caller. Words are little endian. */
#ifndef CLIPQ_H
#define CLIPQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clipq_program.h"
#include "clipq_regs.h"

enum clipq_stream { CLIPQ_WEIGHTS_STREAM, CLIPQ_IMAGES_STREAM, CLIPQ_RESULTS_STREAM };

/* Results of the functions below: 0, an enum clipq_error, or one of these. */
enum { CLIPQ_TIMEOUT = -1, CLIPQ_NOT_FOUND = -2, CLIPQ_NOT_FOR_THIS_BUILD = -3 };

struct clipq {
    void *context; /* handed to all functions */
    uint32_t (*read)(void *context, uint32_t offset);
    void (*write)(void *context, uint32_t offset, uint32_t value);
    /* Begin to send words, or to receive as many: the last one carries TLAST. */
    void (*transfer)(void *context, int stream, uint64_t *words, size_t count);
    bool (*done)(void *context, int stream); /* the words are sent, or in memory */
    void (*stop)(void *context, int stream); /* give the transfer up; another one may follow */
    void (*pause)(void *context);            /* at least a microsecond */
    uint32_t patience;                       /* pauses until CLIPQ_TIMEOUT */
    uint32_t layer;                          /* after an error: the layer that ran */
};

struct clipq_counters {
    uint32_t cycles, stalls, reads, writes, weight_words;
};

int clipq_open(struct clipq *accelerator);
int clipq_load(struct clipq *accelerator, uint64_t *program, size_t words);
int clipq_start(struct clipq *accelerator);
int clipq_image(struct clipq *accelerator, uint64_t *weights, size_t weight_words, uint64_t *image, size_t image_words,
                uint64_t *results, size_t result_words);
int clipq_stop(struct clipq *accelerator);
void clipq_soft_reset(struct clipq *accelerator);
struct clipq_counters clipq_layer(struct clipq *accelerator, uint32_t layer);
size_t clipq_encode(const uint8_t *values, size_t channels, size_t height, size_t width, uint64_t *image);
const char *clipq_text(int result);

#endif
