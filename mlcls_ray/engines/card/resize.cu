// Resize a batch of RGB images as Pillow resizes 8-bit images, bit by bit: integer arithmetic with weights of 22 bits, the horizontal pass
// first, its result rounded to 8 bits (src/libImaging/Resample.c and Geometry.c of Pillow).
//
// A card compiles this file by NVRTC, with --fmad=false: a fused multiply-add rounds once where Pillow rounds twice. The tests compile it by
// g++ and run each thread of the grid in turn, so it uses nothing but the language, `sin`, and CUDA's indices.

#define WEIGHT_BITS 22
#define PI 3.14159265358979323846

// The columns of a job: one image, and where its parts are. mlcls_ray/engines/card/resize.py fills them in this order.
enum Column {
    SOURCE,    // address of the pixel that is at the top left when the image is upright
    STEP_X,    // bytes from a pixel to its right neighbour, upright
    STEP_Y,    // bytes from a pixel to the one below it, upright
    WIDTH,     // of the upright image
    HEIGHT,
    RESIZED_WIDTH,  // of the whole resized image, of which the output is a part
    RESIZED_HEIGHT,
    LEFT,      // position of the output in the resized image
    TOP,
    FIRST_ROW, // first row of the upright image that the output depends on
    ROWS,      // number of them
    WEIGHTS_X, // offset of the weights of its columns, in integers
    WEIGHTS_Y,
    BETWEEN,   // offset of its rows between the passes, in bytes
    OUTPUT,    // its row of the output batch
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

// Compute the weights of one column or row of the output: which samples of the source it depends on, and how much.
// Grid: (columns and rows of the output, images). `spans`: first sample and number of samples. The weights of a sample number lie side by side.
extern "C" __global__ void compute_weights(
    const long long *jobs, int filter, int out_width, int out_height, int *spans, int *weights) {
    int position = blockIdx.x * blockDim.x + threadIdx.x;
    if (position >= out_width + out_height) return;
    const long long *job = jobs + (long long)blockIdx.y * COLUMNS;
    int *span = spans + 2 * ((long long)blockIdx.y * (out_width + out_height) + position);
    bool is_row = position >= out_width;
    int at = is_row ? position - out_width : position;
    int *weight = weights + job[is_row ? WEIGHTS_Y : WEIGHTS_X] + at;
    int stride = is_row ? out_height : out_width;
    int size = (int)job[is_row ? HEIGHT : WIDTH];
    at += (int)job[is_row ? TOP : LEFT];

    double scale = (double)size / (double)job[is_row ? RESIZED_HEIGHT : RESIZED_WIDTH];
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
        weight[(long long)(i - first) * stride] = (int)(share < 0 ? share - 0.5 : share + 0.5);
    }
    span[0] = first;
    span[1] = last - first;
}

static __device__ unsigned char clip(int sum) {
    sum >>= WEIGHT_BITS;
    return (unsigned char)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// The first pass. Grid: (columns of the output, rows of the source, images).
extern "C" __global__ void resize_rows(
    const long long *jobs, int out_width, int out_height, const int *spans, const int *weights, unsigned char *between) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    const long long *job = jobs + (long long)blockIdx.z * COLUMNS;
    int row = blockIdx.y;
    if (x >= out_width || row >= job[ROWS]) return;
    const int *span = spans + 2 * ((long long)blockIdx.z * (out_width + out_height) + x);
    const int *weight = weights + job[WEIGHTS_X] + x;
    long long step = job[STEP_X];
    const unsigned char *pixel = (const unsigned char *)job[SOURCE] + (job[FIRST_ROW] + row) * job[STEP_Y] + span[0] * step;
    int red = 1 << (WEIGHT_BITS - 1), green = red, blue = red;
    for (int i = 0; i < span[1]; i++, pixel += step, weight += out_width) {
        red += pixel[0] * *weight;
        green += pixel[1] * *weight;
        blue += pixel[2] * *weight;
    }
    unsigned char *result = between + job[BETWEEN] + ((long long)row * out_width + x) * 3;
    result[0] = clip(red);
    result[1] = clip(green);
    result[2] = clip(blue);
}

// The second pass. Grid: (bytes of a row of the output, rows of the output, images).
extern "C" __global__ void resize_columns(
    const long long *jobs, int out_width, int out_height, const int *spans, const int *weights, const unsigned char *between,
    unsigned char *output) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y;
    int row_bytes = out_width * 3;
    if (x >= row_bytes) return;
    const long long *job = jobs + (long long)blockIdx.z * COLUMNS;
    const int *span = spans + 2 * ((long long)blockIdx.z * (out_width + out_height) + out_width + y);
    const int *weight = weights + job[WEIGHTS_Y] + y;
    const unsigned char *sample = between + job[BETWEEN] + (span[0] - job[FIRST_ROW]) * row_bytes + x;
    int sum = 1 << (WEIGHT_BITS - 1);
    for (int i = 0; i < span[1]; i++, sample += row_bytes, weight += out_height) sum += *sample * *weight;
    output[(job[OUTPUT] * out_height + y) * row_bytes + x] = clip(sum);
}
