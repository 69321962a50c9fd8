/* The proof of gradients: central differences of five points, whose own error is of the fourth order. */
#include "grad_space.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY ((size_t)256 << 20)

float grad_random(grad_space *s)
{
    s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)(s->seed >> 44) - (1 << 19)) / (float)(1 << 19);
}

void *grad_memory(grad_space *s, size_t bytes)
{
    void *memory = kh_arena_take(&s->memory, bytes);
    assert_non_null(memory);
    return memory;
}

float *grad_new(grad_space *s, grad_kind kind, const char *name, size_t n)
{
    assert_true(s->count < GRAD_ARRAYS);
    grad_array *a = &s->arrays[s->count];
    *a = (grad_array){.name = name, .kind = kind, .n = n};
    a->data = grad_memory(s, n * sizeof(float));
    a->start = grad_memory(s, n * sizeof(float));
    a->loss = grad_memory(s, n * sizeof(float));
    a->gradient = grad_memory(s, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        float x = grad_random(s), away = s->of->unsmooth ? 0.0625f : 0;
        a->start[i] = x < 0 ? x - away : x + away;
        a->loss[i] = grad_random(s);
    }
    s->p[s->count++] = a->data;
    return a->data;
}

static float *gradient_of(void *context, const float *weight)
{
    grad_space *s = context;
    for (size_t i = 0; i < s->count; i++) {
        grad_array *a = &s->arrays[i];
        if (a->kind == GRAD_PARAMETER && weight >= a->data && weight < a->data + a->n)
            return a->gradient + (weight - a->data);
    }
    return NULL;
}

void grad_open(grad_space *s, const grad_case *of, kh_isa isa, int threads, size_t chunk)
{
    *s = (grad_space){.of = of, .chunk = chunk, .seed = 1};
    s->pool.threads = threads;
    s->run = (kh_run){.step = &s->step,
                      .pool = &s->pool,
                      .scratch = s->scratch,
                      .kern = kh_kern_get(isa),
                      .batch = &s->batch};
    assert_int_equal(kh_arena_init(&s->memory, "arrays", MEMORY), KH_OK);
    assert_int_equal(kh_arena_init(&s->step, "step", MEMORY), KH_OK);
    assert_int_equal(kh_arena_init(&s->twins, "twins", MEMORY), KH_OK);
    for (int i = 0; i < threads; i++)
        assert_int_equal(kh_arena_init(&s->scratch[i], "scratch", MEMORY), KH_OK);
    assert_int_equal(kh_tape_open(&s->tape, MEMORY), KH_OK);
    s->tape.gradient_of = gradient_of;
    s->tape.context = s;
    of->make(s);
}

void grad_close(grad_space *s)
{
    kh_tape_close(&s->tape);
    for (int i = 0; i < s->pool.threads; i++) kh_arena_free(&s->scratch[i]);
    kh_arena_free(&s->twins);
    kh_arena_free(&s->step);
    kh_arena_free(&s->memory);
}

static void restore(grad_space *s)
{
    for (size_t i = 0; i < s->count; i++)
        memcpy(s->arrays[i].data, s->arrays[i].start, s->arrays[i].n * sizeof(float));
}

static void good(kh_status status)
{
    if (status) fail_msg("%s", kh_last_error());
}

kh_status grad_chunk_back(grad_space *s)
{
    return s->chunk && s->run.tape ? kh_tape_backward(&s->run, NULL) : KH_OK;
}

void grad_run(grad_space *s)
{
    restore(s);
    kh_tape_reset(&s->tape);
    kh_arena_rewind(&s->twins, 0);
    for (size_t i = 0; i < s->count; i++) {
        grad_array *a = &s->arrays[i];
        memset(a->gradient, 0, a->n * sizeof(float));
        if (a->kind != GRAD_BUFFER) continue;
        good(kh_tape_buffer(&s->tape, &s->twins, a->data, a->n));
        memcpy(s->tape.twins[s->tape.twin_count - 1].gradient, a->loss, a->n * sizeof(float));
    }
    s->run.tape = &s->tape;
    good(s->of->pass(s));
    good(kh_tape_backward(&s->run, NULL));
    for (size_t i = 0; i < s->count; i++) {
        grad_array *a = &s->arrays[i];
        if (a->kind == GRAD_BUFFER)
            memcpy(a->gradient, kh_tape_twin_of(&s->run, a->data), a->n * sizeof(float));
    }
    assert_int_equal(s->step.used, 0);
    s->run.tape = NULL;
}

static double loss(grad_space *s)
{
    double sum = 0;
    good(s->of->pass(s));
    for (size_t i = 0; i < s->count; i++) {
        grad_array *a = &s->arrays[i];
        for (size_t k = 0; a->kind == GRAD_BUFFER && k < a->n; k++)
            sum += (double)a->data[k] * (double)a->loss[k];
    }
    return sum;
}

static double shifted(grad_space *s, grad_array *a, size_t k, double by)
{
    restore(s);
    a->data[k] += (float)by;
    return loss(s);
}

static double difference(grad_space *s, grad_array *a, size_t k)
{
    double h = s->of->unsmooth ? 1e-4 : 1e-3;
    return (8 * (shifted(s, a, k, h) - shifted(s, a, k, -h)) -
            (shifted(s, a, k, 2 * h) - shifted(s, a, k, -2 * h))) /
           (12 * h);
}

void grad_prove(grad_space *s, size_t most)
{
    double worst = 0;
    grad_run(s);
    for (size_t i = 0; i < s->count; i++) {
        grad_array *a = &s->arrays[i];
        double largest = 0;
        if (a->kind == GRAD_FROZEN) continue;
        for (size_t k = 0; k < a->n; k++) largest = fmax(largest, fabs((double)a->gradient[k]));
        size_t each = most == 0 || a->n <= most ? 1 : a->n / most;
        for (size_t k = 0; k < a->n; k += each) {
            double have = (double)a->gradient[k], want = difference(s, a, k);
            double size = fmax(fmax(fabs(have), fabs(want)), 1e-3 * largest);
            double error = fabs(have - want) / (size + 1e-9);
            worst = fmax(worst, error);
            if (!(error <= 1e-6))
                fail_msg("%s: %s [%zu of %zu]: gradient %.12g, differences %.12g", s->of->name,
                         a->name, k, a->n, have, want);
        }
    }
    print_message("%-40s %.1e\n", s->of->name, worst);
}
