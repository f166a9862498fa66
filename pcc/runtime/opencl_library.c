/* Where OpenCL is. Nothing is linked against: a system without it runs on the processor. */
#include <dlfcn.h>

#include "opencl.h"
#include "text.h"

/* Where Linux and Android's vendors keep it. Pixels hand their functions out by a function of their own. An app for Android 12 and later has to name the
 * library in its manifest, and likewise libOpenCL-pixel.so and libGLES_mali.so:
 *     <uses-native-library android:name="libOpenCL.so" android:required="false"/> */
static const char *const places[] = {
    "libOpenCL.so",
    "libOpenCL-pixel.so",
    "libGLES_mali.so",
    "libmali.so",
    "/vendor/lib64/libOpenCL.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/vendor/lib64/egl/libGLES_mali.so",
    "/system/vendor/lib64/egl/libGLES_mali.so",
    "libOpenCL.so.1",
};

static void *find(void *library, void *(*pixel)(const char *), const char *name) { return pixel ? pixel(name) : dlsym(library, name); }

/* The first function that a library lacks, or NULL. */
static const char *take_functions(struct pcc_opencl *cl, void *library) {
  void (*enable)(void) = (void (*)(void))dlsym(library, "enableOpenCL");
  void *(*pixel)(const char *) = (void *(*)(const char *))dlsym(library, "loadOpenCLPointer");
  if (enable) enable();
#define TAKE(RESULT, NAME, PARAMETERS) \
  cl->NAME = (RESULT(*) PARAMETERS)find(library, pixel, #NAME); \
  if (!cl->NAME) return #NAME;
  PCC_OPENCL_FUNCTIONS(TAKE)
  return NULL;
}

bool pcc_opencl_load(struct pcc_opencl *cl, char *why, size_t why_size) {
  pcc_text(why, why_size, "no OpenCL library is found");
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    void *library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) continue;
    const char *lacks = take_functions(cl, library);
    if (!lacks) return true;
    pcc_text(why, why_size, "%s has no %s", places[i], lacks);
    dlclose(library);
  }
  return false;
}

const char *pcc_opencl_error(cl_int error) {
  static const struct {
    cl_int code;
    const char *name;
  } known[] = {
      {-1, "CL_DEVICE_NOT_FOUND"},
      {-2, "CL_DEVICE_NOT_AVAILABLE"},
      {-3, "CL_COMPILER_NOT_AVAILABLE"},
      {-4, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
      {-5, "CL_OUT_OF_RESOURCES"},
      {-6, "CL_OUT_OF_HOST_MEMORY"},
      {-7, "CL_PROFILING_INFO_NOT_AVAILABLE"},
      {-11, "CL_BUILD_PROGRAM_FAILURE"},
      {-12, "CL_MAP_FAILURE"},
      {-14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
      {-30, "CL_INVALID_VALUE"},
      {-34, "CL_INVALID_CONTEXT"},
      {-36, "CL_INVALID_COMMAND_QUEUE"},
      {-46, "CL_INVALID_KERNEL_NAME"},
      {-54, "CL_INVALID_WORK_GROUP_SIZE"},
      {-61, "CL_INVALID_BUFFER_SIZE"},
      {-1001, "CL_PLATFORM_NOT_FOUND_KHR"},
  };
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (known[i].code == error) return known[i].name;
  return "an OpenCL error without a name";
}
