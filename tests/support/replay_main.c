/* Replays a fuzz target without libFuzzer: replay_x FILE-OR-FOLDER ...
 *
 * Every input runs as it is, then cut at 32 even places, then with 32 single bytes replaced. That is
 * no substitute for fuzzing, but it runs with any compiler, in every test run, and the cuts alone find
 * most unchecked lengths. An empty corpus is a failure: a test that read nothing proves nothing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CUTS = 32, FLIPS = 32 };

static unsigned long inputs;

/* A copy of exactly the right size, so that a sanitizer sees a read one byte past the end. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) exit(1);
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    inputs++;
}

static void run_variants(uint8_t *data, size_t size)
{
    uint32_t state = 2463534242u;
    run(data, size);
    for (size_t i = 0; i < CUTS && size > CUTS; i++) run(data, size * i / CUTS);
    for (size_t i = 0; i < FLIPS && size; i++) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        /* Half of the changes go into the first 512 bytes, where formats keep their lengths. */
        size_t at = state % (i % 2 || size < 512 ? size : 512);
        uint8_t old = data[at];
        data[at] = (uint8_t)(state >> 24);
        run(data, size);
        data[at] = old;
    }
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file && fseek(file, 0, SEEK_END) == 0) size = ftell(file);
    uint8_t *data = size >= 0 ? malloc((size_t)size + 1) : NULL;
    int good = data && fseek(file, 0, SEEK_SET) == 0 &&
               fread(data, 1, (size_t)size, file) == (size_t)size;
    if (good)
        run_variants(data, (size_t)size);
    else
        fprintf(stderr, "%s: cannot be read\n", path);
    free(data);
    if (file) fclose(file);
    return good;
}

static int replay(const char *path)
{
    struct stat info;
    char inner[4096];
    int good = 1;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) return replay_file(path);
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        if (e->d_name[0] == '.') continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        good &= replay(inner);
    }
    if (folder) closedir(folder);
    return good;
}

int main(int argc, char **argv)
{
    int good = 1;
    for (int i = 1; i < argc; i++) good &= replay(argv[i]);
    printf("%lu inputs\n", inputs);
    if (inputs == 0) fprintf(stderr, "there was nothing to replay\n");
    return good && inputs ? 0 : 1;
}
