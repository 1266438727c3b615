// A plug-in that gives Paddle two devices of the kind DEVICE_KIND, on the memory of the host. Paddle runs its CPU kernels on them, as it
// does where a plug-in lacks a kernel. tests/devices/plugins.py compiles it, once for each kind; environment variables of a process:
//   VISIBLE_DEVICES (a macro: the kind's variable)   the devices that the process sees, as "1" or "0,1"; default: both
//   STAND_IN_LOG     a file that gets a line "KIND:NUMBER PID", by the devices' numbers on the machine, for each device that is used
//   STAND_IN_LINES   a device's first use waits until the log has so many lines: so many processes use devices at once
//   STAND_IN_BYTES   bytes that may be allocated on a device; the next allocation fails
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "paddle/phi/backends/custom/fake_cpu_device.h"

namespace {

size_t Memory() {
  const char* text = std::getenv("STAND_IN_BYTES");
  return text ? std::strtoull(text, nullptr, 10) : size_t{16} << 30;
}

// The numbers, on the machine, of the devices that this process sees.
std::vector<int> Visible() {
  const char* text = std::getenv(VISIBLE_DEVICES);
  if (text == nullptr) return {0, 1};
  std::vector<int> numbers;
  for (; *text; ++text) {
    if (*text == '0' || *text == '1') numbers.push_back(*text - '0');
  }
  return numbers;
}

int Lines(const char* path) {
  FILE* log = std::fopen(path, "r");
  int lines = 0;
  for (int letter; (letter = std::fgetc(log)) != EOF;) lines += letter == '\n';
  std::fclose(log);
  return lines;
}

void Log(int index) {
  static std::atomic<bool> is_logged[2];
  const char* path = std::getenv("STAND_IN_LOG");
  if (path == nullptr || is_logged[index].exchange(true)) return;
  FILE* log = std::fopen(path, "a");
  std::fprintf(log, "%s:%d %d\n", DEVICE_KIND, Visible().at(index), static_cast<int>(getpid()));
  std::fclose(log);
  const char* lines = std::getenv("STAND_IN_LINES");
  for (int waited = 0; lines != nullptr && Lines(path) < std::atoi(lines) && waited < 1200; ++waited) usleep(100000);
}

thread_local int current = 0;
std::atomic<size_t> allocated[2];

C_Status CountDevices(size_t* count) { return *count = Visible().size(), C_SUCCESS; }

C_Status ListDevices(size_t* numbers) {
  for (size_t index = 0; index < Visible().size(); ++index) numbers[index] = index;
  return C_SUCCESS;
}

C_Status SetCurrent(const C_Device device) { return current = device->id, C_SUCCESS; }

C_Status GetCurrent(const C_Device device) { return device->id = current, C_SUCCESS; }

C_Status AllocateOnDevice(const C_Device device, void** pointer, size_t size) {
  Log(device->id);
  bool fits = allocated[device->id] + size <= Memory();
  *pointer = fits ? std::malloc(size) : nullptr;
  if (*pointer == nullptr) return C_FAILED;
  allocated[device->id] += size;
  return C_SUCCESS;
}

C_Status FreeOnDevice(const C_Device device, void* pointer, size_t size) {
  std::free(pointer);
  allocated[device->id] -= size;
  return C_SUCCESS;
}

C_Status AllocateOnHost(const C_Device, void** pointer, size_t size) {
  return (*pointer = std::malloc(size)) != nullptr ? C_SUCCESS : C_FAILED;
}

C_Status FreeOnHost(const C_Device, void* pointer, size_t) { return std::free(pointer), C_SUCCESS; }

C_Status MemoryOfDevice(const C_Device device, size_t* total, size_t* free) {
  *total = Memory();
  *free = *total - allocated[device->id];
  return C_SUCCESS;
}

C_Status LargestAllocation(const C_Device, size_t* size) { return *size = Memory(), C_SUCCESS; }

std::vector<std::string> no_passes;

}  // namespace

void InitPlugin(CustomRuntimeParams* params) {
  PADDLE_CUSTOM_RUNTIME_CHECK_VERSION(params);
  InitFakeCPUDevice(params);
  params->device_type = const_cast<char*>(DEVICE_KIND);
  params->pir_default_passes = &no_passes;
  C_DeviceInterface* device = params->interface;
  device->get_device_count = CountDevices;
  device->get_device_list = ListDevices;
  device->set_device = SetCurrent;
  device->get_device = GetCurrent;
  device->device_memory_allocate = AllocateOnDevice;
  device->device_memory_deallocate = FreeOnDevice;
  device->host_memory_allocate = device->unified_memory_allocate = AllocateOnHost;
  device->host_memory_deallocate = device->unified_memory_deallocate = FreeOnHost;
  device->device_memory_stats = MemoryOfDevice;
  device->device_max_alloc_size = LargestAllocation;
}
