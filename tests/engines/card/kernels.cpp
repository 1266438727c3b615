// The card's kernels on a CPU: resize.cu as it is, with CUDA's words and indices, and a loop over the threads of the grid.
#include <cmath>

#define __global__
#define __device__

struct Index {
    int x, y, z;
};
static thread_local Index blockIdx, blockDim, threadIdx;

#include "resize.cu"

template <typename Kernel>
static void each_thread(int x, int y, int z, int block, Kernel kernel) {
    blockDim = {block, 1, 1};
    for (blockIdx.z = 0; blockIdx.z < z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < x; blockIdx.x++)
                for (threadIdx.x = 0; threadIdx.x < block; threadIdx.x++) kernel();
}

extern "C" void run_compute_weights(
    int x, int y, int z, int block, const long long *jobs, int filter, int positions, int *spans, int *weights) {
    each_thread(x, y, z, block, [=] { compute_weights(jobs, filter, positions, spans, weights); });
}

extern "C" void run_resize_first(
    int x, int y, int z, int block, const long long *jobs, int positions, const int *spans, const int *weights, unsigned char *between) {
    each_thread(x, y, z, block, [=] { resize_first(jobs, positions, spans, weights, between); });
}

extern "C" void run_resize_second(
    int x, int y, int z, int block, const long long *jobs, int positions, const int *spans, const int *weights,
    const unsigned char *between, unsigned char *output) {
    each_thread(x, y, z, block, [=] { resize_second(jobs, positions, spans, weights, between, output); });
}
