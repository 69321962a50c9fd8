// std::partial_sort as a peer of keyhole bench select: the k largest of n scores, with their indices.
//
//     partial_sort N K KIND       runs once and prints a line; then, for each line of standard input, runs that
//                                 often and prints {"seconds": [...], "peak_bytes": 0}
//
// Pairs of score and index lie side by side, so that a comparison reads one place: faster than sorting
// indices that point at scores. Sixteen rows in turn; times are of one row.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

using Pair = std::pair<float, uint32_t>;

static uint64_t sink;

static void select_row(const float *scores, size_t n, size_t k, std::vector<Pair> &room)
{
    for (size_t i = 0; i < n; i++) room[i] = {scores[i], static_cast<uint32_t>(i)};
    std::partial_sort(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(k), room.end(),
                      [](const Pair &a, const Pair &b) { return a.first > b.first; });
    sink += room[k - 1].second;
}

// As keyhole bench select --scores makes them.
static void fill(std::vector<float> &scores, size_t n, const std::string &kind)
{
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float &x : scores) {
        x = normal(random);
        if (kind == "heavy") x = std::exp(2 * x);
        if (kind == "equal") x = 0.5f;
        if (kind == "ties") x = std::floor(4 * std::min(std::max(x, -2.0f), 1.99f)) / 4;
    }
    for (size_t i = 0; i < scores.size() && kind == "ascending"; i += n)
        std::sort(scores.begin() + static_cast<std::ptrdiff_t>(i), scores.begin() + static_cast<std::ptrdiff_t>(i + n));
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    const size_t n = std::strtoull(argv[1], nullptr, 10), k = std::strtoull(argv[2], nullptr, 10);
    const size_t rows = 16, turns = std::max<size_t>(1, (1 << 20) / (rows * n));
    if (n < 1 || k < 1 || k > n) return 2;
    std::vector<float> scores(rows * n);
    std::vector<Pair> room(n);
    fill(scores, n, argv[3]);
    const auto run = [&] {
        for (size_t t = 0; t < turns; t++)
            for (size_t r = 0; r < rows; r++) select_row(scores.data() + r * n, n, k, room);
    };
    run();
    std::printf("{}\n");
    std::fflush(stdout);
    for (int times; std::scanf("%d", &times) == 1;) {
        std::printf("{\"seconds\": [");
        for (int i = 0; i < times; i++) {
            const auto start = std::chrono::steady_clock::now();
            run();
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
            std::printf("%s%.9g", i ? ", " : "", took.count() / static_cast<double>(turns * rows));
        }
        std::printf("], \"peak_bytes\": 0}\n");
        std::fflush(stdout);
    }
    return sink == 1;
}
