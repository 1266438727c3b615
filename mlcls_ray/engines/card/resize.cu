// Resize a batch of RGB images as Pillow resizes 8-bit images, bit by bit: integer arithmetic with weights of 22 bits, one pass along each
// axis, first along the width, the result rounded to 8 bits (src/libImaging/Resample.c and Geometry.c of Pillow).
//
// A card compiles this file by NVRTC, with --fmad=false: a fused multiply-add rounds once where Pillow rounds twice. The tests compile it by
// g++ and run each thread of the grid in turn, so it uses nothing but the language, `sin`, and CUDA's indices.

#define WEIGHT_BITS 22
#define PI 3.14159265358979323846

// The columns of a job: one image, and where its parts are. mlcls_ray/engines/card/resize.py fills them in this order. Each pair is of the
// first and the second axis.
enum Column {
    SOURCE,      // address of the pixel that is at the top left when the image is upright
    STEP,        // bytes from a pixel to the next one
    SIZE = 3,    // of the upright image
    RESIZED = 5, // of the whole resized image, of which the output is a part
    START = 7,   // position of the output in the resized image
    LENGTH = 9,  // of the output
    WEIGHTS = 11,     // offset of the weights, in integers
    OUT_STEP = 13,    // bytes from a pixel of the output to the next one
    FIRST_LINE = 15,  // first line of the upright image that the output depends on; lines are along the first axis
    LINES,            // number of them
    BETWEEN,          // offset of the lines between the passes, in bytes
    OUTPUT,           // offset of the image in the output batch, in bytes
    COLUMNS
};

enum Filter { NEAREST, BOX, BILINEAR, BICUBIC, LANCZOS };

static __device__ double support(int filter) {
    return filter == BOX ? 0.5 : filter == BILINEAR ? 1.0 : filter == BICUBIC ? 2.0 : 3.0;
}

static __device__ double sinc(double x) {
    if (x == 0.0) return 1.0;
    x = x * PI;
    return sin(x) / x;
}

static __device__ double response(int filter, double x) {
    if (filter == BOX) return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    if (filter == LANCZOS) return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    if (x < 0.0) x = -x;
    if (filter == BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
    const double a = -0.5;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

// Compute the weights of one position of the output along one axis: which samples of the source it depends on, and how much.
// Grid: (positions of both axes, images). `spans`: first sample and number of samples. The weights of a sample number lie side by side.
extern "C" __global__ void compute_weights(const long long *jobs, int filter, int positions, int *spans, int *weights) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= positions) return;
    const long long *job = jobs + (long long)blockIdx.y * COLUMNS;
    int *span = spans + 2 * ((long long)blockIdx.y * positions + at);
    int axis = at >= job[LENGTH];
    if (axis) at -= (int)job[LENGTH];
    int *weight = weights + job[WEIGHTS + axis] + at;
    long long stride = job[LENGTH + axis];
    int size = (int)job[SIZE + axis];
    at += (int)job[START + axis];

    double scale = (double)size / (double)job[RESIZED + axis];
    if (filter == NEAREST) {
        double sample = scale * 0.5;
        for (int i = 0; i < at; i++) sample += scale;  // as Pillow does it, with its rounding errors
        span[0] = (int)sample < size ? (int)sample : size - 1;
        span[1] = 1;
        weight[0] = 1 << WEIGHT_BITS;
        return;
    }
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double reach = support(filter) * filter_scale;
    double center = (at + 0.5) * scale;
    double narrow = 1.0 / filter_scale;
    int first = (int)(center - reach + 0.5);
    if (first < 0) first = 0;
    int last = (int)(center + reach + 0.5);
    if (last > size) last = size;
    double sum = 0.0;
    for (int i = first; i < last; i++) sum += response(filter, (i - center + 0.5) * narrow);
    for (int i = first; i < last; i++) {
        double share = response(filter, (i - center + 0.5) * narrow);
        if (sum != 0.0) share /= sum;
        share *= 1 << WEIGHT_BITS;
        weight[(i - first) * stride] = (int)(share < 0 ? share - 0.5 : share + 0.5);
    }
    span[0] = first;
    span[1] = last - first;
}

static __device__ unsigned char clip(int sum) {
    sum >>= WEIGHT_BITS;
    return (unsigned char)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// The first pass. Grid: (positions of the first axis, lines, images).
extern "C" __global__ void resize_first(
    const long long *jobs, int positions, const int *spans, const int *weights, unsigned char *between) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    int line = blockIdx.y;
    const long long *job = jobs + (long long)blockIdx.z * COLUMNS;
    long long length = job[LENGTH];
    if (at >= length || line >= job[LINES]) return;
    const int *span = spans + 2 * ((long long)blockIdx.z * positions + at);
    const int *weight = weights + job[WEIGHTS] + at;
    long long step = job[STEP];
    const unsigned char *pixel = (const unsigned char *)job[SOURCE] + (job[FIRST_LINE] + line) * job[STEP + 1] + span[0] * step;
    int red = 1 << (WEIGHT_BITS - 1), green = red, blue = red;
    for (int i = 0; i < span[1]; i++, pixel += step, weight += length) {
        red += pixel[0] * *weight;
        green += pixel[1] * *weight;
        blue += pixel[2] * *weight;
    }
    unsigned char *result = between + job[BETWEEN] + (line * length + at) * 3;
    result[0] = clip(red);
    result[1] = clip(green);
    result[2] = clip(blue);
}

// The second pass. Grid: (bytes of a line, positions of the second axis, images).
extern "C" __global__ void resize_second(
    const long long *jobs, int positions, const int *spans, const int *weights, const unsigned char *between, unsigned char *output) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    int line = blockIdx.y;
    const long long *job = jobs + (long long)blockIdx.z * COLUMNS;
    long long line_bytes = job[LENGTH] * 3, length = job[LENGTH + 1];
    if (at >= line_bytes || line >= length) return;
    const int *span = spans + 2 * ((long long)blockIdx.z * positions + job[LENGTH] + line);
    const int *weight = weights + job[WEIGHTS + 1] + line;
    const unsigned char *sample = between + job[BETWEEN] + (span[0] - job[FIRST_LINE]) * line_bytes + at;
    int sum = 1 << (WEIGHT_BITS - 1);
    for (int i = 0; i < span[1]; i++, sample += line_bytes, weight += length) sum += *sample * *weight;
    output[job[OUTPUT] + at / 3 * job[OUT_STEP] + line * job[OUT_STEP + 1] + at % 3] = clip(sum);
}
