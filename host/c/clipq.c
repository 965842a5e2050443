#include "clipq.h"

#include <string.h>

#define FIELD(value, name) (((value) & CLIPQ_##name##_MASK) >> CLIPQ_##name##_SHIFT)
#define ALL_INTERRUPTS (CLIPQ_IRQ_STATUS_DONE_MASK | CLIPQ_IRQ_STATUS_ERROR_MASK | CLIPQ_IRQ_STATUS_STOPPED_MASK)

static bool program_valid(struct clipq *a)
{
    return a->read(a->context, CLIPQ_STATUS) & CLIPQ_STATUS_PROG_VALID_MASK;
}

static bool image_done(struct clipq *a)
{
    return a->read(a->context, CLIPQ_IRQ_STATUS) & CLIPQ_IRQ_STATUS_DONE_MASK;
}

static bool program_sent(struct clipq *a)
{
    return a->done(a->context, CLIPQ_WEIGHTS_STREAM);
}

static bool results_received(struct clipq *a)
{
    return a->done(a->context, CLIPQ_RESULTS_STREAM);
}

static bool result_left(struct clipq *a)
{
    return a->read(a->context, CLIPQ_STATUS) & CLIPQ_STATUS_RESULT_MASK;
}

static bool idle(struct clipq *a)
{
    return !(a->read(a->context, CLIPQ_STATUS) & CLIPQ_STATUS_BUSY_MASK);
}

/* The error that is reported; it is kept in the accelerator until the soft reset here. */
static int failure(struct clipq *a)
{
    if (!(a->read(a->context, CLIPQ_STATUS) & CLIPQ_STATUS_ERROR_MASK)) return 0;
    uint32_t error = a->read(a->context, CLIPQ_ERROR);
    a->layer = FIELD(error, ERROR_LAYER);
    clipq_soft_reset(a);
    return (int)FIELD(error, ERROR_CODE);
}

static int wait_for(struct clipq *a, bool (*condition)(struct clipq *))
{
    for (uint32_t left = a->patience; !condition(a); left--) {
        int code = failure(a);
        if (code) return code;
        if (left == 0) {
            clipq_soft_reset(a);
            return CLIPQ_TIMEOUT;
        }
        a->pause(a->context);
    }
    return failure(a);
}

/* Check that there is an accelerator of this version, and bring it to rest. */
int clipq_open(struct clipq *a)
{
    uint32_t id = a->read(a->context, CLIPQ_ID), version = a->read(a->context, CLIPQ_VERSION);
    if (id != CLIPQ_ID_ID_VALUE || FIELD(version, VERSION_MAJOR) != CLIPQ_VERSION_MAJOR_VALUE) return CLIPQ_NOT_FOUND;
    clipq_soft_reset(a);
    return a->read(a->context, CLIPQ_STATUS) & ~CLIPQ_STATUS_PROG_VALID_MASK ? CLIPQ_TIMEOUT : 0;
}

/* Send a program: a whole packet, as model.compiler writes it. */
int clipq_load(struct clipq *a, uint64_t *program, size_t words)
{
    uint32_t modules = FIELD(a->read(a->context, CLIPQ_PARAMS), PARAMS_NUM_MODULES);
    if (words < CLIPQ_PACKET_WORDS + CLIPQ_HEADER_WORDS ||
        clipq_field(program + CLIPQ_PACKET_WORDS, CLIPQ_HEADER_NUM_MODULES) != modules)
        return CLIPQ_NOT_FOR_THIS_BUILD;
    a->transfer(a->context, CLIPQ_WEIGHTS_STREAM, program, words);
    int code = wait_for(a, program_sent);
    a->pause(a->context);
    return code ? code : wait_for(a, program_valid);
}

/* Begin a run: images follow until clipq_stop. */
int clipq_start(struct clipq *a)
{
    if (result_left(a)) clipq_soft_reset(a);
    a->write(a->context, CLIPQ_IRQ_STATUS, ALL_INTERRUPTS);
    a->write(a->context, CLIPQ_IRQ_ENABLE, ALL_INTERRUPTS);
    a->write(a->context, CLIPQ_CTRL, CLIPQ_CTRL_START_MASK);
    a->pause(a->context);
    return failure(a);
}

/* One image: the packet of weights, the pixels of clipq_encode, and room for the packet of results. */
int clipq_image(struct clipq *a, uint64_t *weights, size_t weight_words, uint64_t *image, size_t image_words,
                uint64_t *results, size_t result_words)
{
    a->transfer(a->context, CLIPQ_RESULTS_STREAM, results, result_words);
    a->transfer(a->context, CLIPQ_WEIGHTS_STREAM, weights, weight_words);
    a->transfer(a->context, CLIPQ_IMAGES_STREAM, image, image_words);
    int code = wait_for(a, results_received);
    if (!code) code = wait_for(a, image_done);
    if (!code) a->write(a->context, CLIPQ_IRQ_STATUS, CLIPQ_IRQ_STATUS_DONE_MASK);
    return code;
}

/* End a run between images. */
int clipq_stop(struct clipq *a)
{
    a->write(a->context, CLIPQ_CTRL, CLIPQ_CTRL_STOP_MASK);
    int code = wait_for(a, idle);
    a->write(a->context, CLIPQ_IRQ_STATUS, ALL_INTERRUPTS);
    return code;
}

/* Abort everything, at any time; the program stays. A run takes the pixels that are offered, and the reset takes
 * the weights, which then lack a header: hence the second one. Two words of results may be left. */
void clipq_soft_reset(struct clipq *a)
{
    uint64_t left[2];
    a->stop(a->context, CLIPQ_IMAGES_STREAM);
    a->write(a->context, CLIPQ_CTRL, CLIPQ_CTRL_SOFT_RESET_MASK);
    a->stop(a->context, CLIPQ_WEIGHTS_STREAM);
    a->pause(a->context);
    a->write(a->context, CLIPQ_CTRL, CLIPQ_CTRL_SOFT_RESET_MASK);
    a->stop(a->context, CLIPQ_RESULTS_STREAM);
    a->transfer(a->context, CLIPQ_RESULTS_STREAM, left, 2);
    a->pause(a->context);
    for (uint32_t more = a->patience; more && result_left(a); more--) a->pause(a->context);
    a->stop(a->context, CLIPQ_RESULTS_STREAM);
    a->write(a->context, CLIPQ_IRQ_STATUS, ALL_INTERRUPTS);
}

/* Counters of a layer of the last image. */
struct clipq_counters clipq_layer(struct clipq *a, uint32_t layer)
{
    a->write(a->context, CLIPQ_LAYER_SEL, layer);
    return (struct clipq_counters){
        .cycles = a->read(a->context, CLIPQ_LAYER_CYCLES),
        .stalls = a->read(a->context, CLIPQ_LAYER_STALLS),
        .reads = a->read(a->context, CLIPQ_LAYER_READS),
        .writes = a->read(a->context, CLIPQ_LAYER_WRITES),
        .weight_words = a->read(a->context, CLIPQ_LAYER_WEIGHTS),
    };
}

/* 8-bit values [channels, height, width] as words of the image stream; returns their number. */
size_t clipq_encode(const uint8_t *values, size_t channels, size_t height, size_t width, uint64_t *image)
{
    size_t bytes = (channels + 3) / 4 * 4, words = (height * width * bytes + 7) / 8;
    memset(image, 0, words * sizeof *image);
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t pixel = 0; pixel < height * width; pixel++) {
            size_t at = pixel * bytes + channel;
            image[at / 8] |= (uint64_t)values[channel * height * width + pixel] << at % 8 * 8;
        }
    return words;
}

/* What a result says. */
const char *clipq_text(int result)
{
    switch (result) {
    case CLIPQ_TIMEOUT: return "TIMEOUT: no end in time";
    case CLIPQ_NOT_FOUND: return "NOT_FOUND: no accelerator of this version at this address";
    case CLIPQ_NOT_FOR_THIS_BUILD: return "NOT_FOR_THIS_BUILD: compiled for another number of conv modules";
#define TEXT(code, text) \
    case code: return text;
    CLIPQ_ERROR_TEXTS(TEXT)
#undef TEXT
    default: return "unknown";
    }
}
