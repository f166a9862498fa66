/* Builds the OpenCL programs that are named on the standard input (a line: FILE, a space, build options) and creates
   their kernels, so that the driver compiles them and prints what it is asked to. libOpenCL is opened at run time. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTIONS(F) F(clGetPlatformIDs) F(clGetDeviceIDs) F(clCreateContext) F(clCreateProgramWithSource) \
    F(clBuildProgram) F(clGetProgramBuildInfo) F(clCreateKernelsInProgram)
#define DECLARE(name) static __typeof__(&name) p_##name;
#define LOAD(name) if (!(p_##name = (__typeof__(&name))dlsym(library, #name))) return 1;
FUNCTIONS(DECLARE)

enum { MOST_KERNELS = 8, LINE = 8192 };

static char *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*size + 1);
    if (text && fread(text, 1, *size, file) != *size) { free(text); text = NULL; }
    fclose(file);
    return text;
}

int main(void) {
    void *library = dlopen("libOpenCL.so.1", RTLD_NOW);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    FUNCTIONS(LOAD)
    cl_platform_id platforms[8];
    cl_uint count = 0, devices = 0;
    cl_device_id device = NULL;
    p_clGetPlatformIDs(8, platforms, &count);
    for (cl_uint i = 0; i < count && i < 8 && !device; i++)
        if (p_clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, &devices) || !devices) device = NULL;
    if (!device) { fprintf(stderr, "no device on %u platforms\n", count); return 1; }
    cl_int error;
    cl_context context = p_clCreateContext(NULL, 1, &device, NULL, NULL, &error);
    static char line[LINE], log[1 << 16];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        char *options = strchr(line, ' ');
        if (options) *options++ = 0;
        fprintf(stderr, "\n=== program %s\n", line);
        size_t size = 0;
        const char *text = contents(line, &size);
        if (!text) { fprintf(stderr, "cannot read %s\n", line); return 1; }
        cl_program program = p_clCreateProgramWithSource(context, 1, &text, &size, &error);
        if ((error = p_clBuildProgram(program, 1, &device, options ? options : "", NULL, NULL))) {
            p_clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, sizeof log, log, NULL);
            fprintf(stderr, "build error %d\n%s\n", error, log);
            continue;
        }
        cl_kernel kernels[MOST_KERNELS];
        p_clCreateKernelsInProgram(program, MOST_KERNELS, kernels, &count);
    }
    fprintf(stderr, "\n=== end\n");
    return 0;
}
