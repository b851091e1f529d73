/* A stand-in for libnvidia-ml.so.1, so that unchanged NVML code runs on a machine without a GPU.
 *
 * Does NOT imitate: CUDA, MIG, NVLink counters, clocks' physics, per-call latency, permissions other than "only root
 * sets a power limit", fan control, more than 16 GPUs. What it does not know answers NOT_SUPPORTED; what is absent from
 * the table of symbols answers as on an old driver (symbol not found).
 *
 * State: a text file of `key=value` lines, replaced whole by rename, so a reader never sees half of it, and read again
 * when it is another file. Path: $NVML_STANDIN_STATE, else /var/lib/twin/nvml.state. `gpuN.key` first, then `gpu.key` for all.
 * Xid events: lines `<gpu> <xid>` appended to <state>.xid; an event set delivers those added after its creation.
 * Setting a power limit: a datagram `limit <gpu> <mW>` to $NVML_STANDIN_SOCKET, else /run/twin/load.sock (the thermal
 * process owns the state); the call returns once the state shows the new limit.
 * Hang: `hang=<seconds>` makes every call but the error texts wait that long, as a wedged driver does.
 *
 * build: gcc -O2 -Wall -Wextra -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 [-DLIBRARY_VERSION='"580.105.08"'] -o … libnvidia-ml.c
 * With LIBRARY_VERSION set, a different loaded driver (`driver=`) fails as in reality: driver/library version mismatch. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef int Return;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, LIB_RM_VERSION_MISMATCH = 18,
    ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999
};
enum { MAX_GPUS = 16, VALUE = 192 };
typedef struct { int index; } Gpu;
typedef Gpu *Device;
typedef struct { long offset; unsigned long long types[MAX_GPUS]; } EventSet;

static Gpu gpus[MAX_GPUS] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}};
static int initialised;

/* ---- the state file ---- */
static const char *state_path(void) {
    const char *path = getenv("NVML_STANDIN_STATE");
    return path ? path : "/var/lib/twin/nvml.state";
}

/* Read again only when the file is another one, looked at every 2 ms: its writer replaces it whole, so inode and time tell. */
static struct { struct timespec changed; ino_t inode; char *content; } cached;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *state(void) {
    struct stat now;
    struct timespec clock;
    static long long looked;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    long long moment = clock.tv_sec * 1000000000LL + clock.tv_nsec;
    if (cached.content && moment - looked < 2000000) return cached.content;
    looked = moment;
    int file = open(state_path(), O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &now)) {
        if (file >= 0) close(file);
        return NULL;
    }
    if (!cached.content || now.st_ino != cached.inode || now.st_mtim.tv_sec != cached.changed.tv_sec ||
        now.st_mtim.tv_nsec != cached.changed.tv_nsec) {
        char *fresh = realloc(cached.content, (size_t)now.st_size + 1);
        if (fresh) {
            ssize_t got = read(file, fresh, (size_t)now.st_size);
            fresh[got > 0 ? got : 0] = 0;
            cached.content = fresh;
            cached.inode = now.st_ino;
            cached.changed = now.st_mtim;
        }
    }
    close(file);
    return cached.content;
}

static int lookup(const char *key, char *out, size_t size) {
    size_t length = strlen(key);
    int hit = 0;
    pthread_mutex_lock(&lock);
    for (const char *line = state(); line && *line && !hit;) {
        size_t end = strcspn(line, "\r\n");
        if (end > length && !strncmp(line, key, length) && line[length] == '=') {
            snprintf(out, size, "%.*s", (int)(end - length - 1), line + length + 1);
            hit = 1;
        }
        line += end;
        line += strspn(line, "\r\n");
    }
    pthread_mutex_unlock(&lock);
    return hit;
}

static int text(Device device, const char *key, char *out, size_t size) {
    char full[96];
    snprintf(full, sizeof full, "gpu%d.%s", device->index, key);
    if (lookup(full, out, size)) return 1;
    snprintf(full, sizeof full, "gpu.%s", key);
    return lookup(full, out, size);
}

static int number(Device device, const char *key, long long *value) {   /* "N/A" or absent: not supported */
    char buffer[VALUE];
    if (!text(device, key, buffer, sizeof buffer) || !strcmp(buffer, "N/A")) return 0;
    *value = strtoll(buffer, NULL, 0);
    return 1;
}

static void hang(void) {
    char buffer[VALUE];
    if (!lookup("hang", buffer, sizeof buffer)) return;
    double seconds = strtod(buffer, NULL);
    struct timespec wait = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    if (seconds > 0) nanosleep(&wait, NULL);
}

static unsigned count(void) {
    char buffer[VALUE];
    int value = lookup("count", buffer, sizeof buffer) ? atoi(buffer) : 0;
    return value < 0 ? 0 : value > MAX_GPUS ? MAX_GPUS : (unsigned)value;
}

static Return ready(void) {
    if (!initialised) return UNINITIALIZED;
    hang();
    return SUCCESS;
}

static Return usable(Device device) {
    long long lost;
    Return result = ready();
    if (result) return result;
    if (!device || device < gpus || device >= gpus + MAX_GPUS) return INVALID_ARGUMENT;
    return number(device, "lost", &lost) && lost ? GPU_IS_LOST : SUCCESS;
}

#define USABLE(device) do { Return result_ = usable(device); if (result_) return result_; } while (0)
#define GIVEN(pointer) do { if (!(pointer)) return INVALID_ARGUMENT; } while (0)
#define NUMBER(function, type, key) \
    Return function(Device device, type *out) { \
        long long value; USABLE(device); GIVEN(out); \
        if (!number(device, key, &value)) return NOT_SUPPORTED; \
        *out = (type)value; return SUCCESS; }
#define TEXT(function, key) \
    Return function(Device device, char *out, unsigned size) { \
        char buffer[VALUE]; USABLE(device); GIVEN(out); \
        if (!text(device, key, buffer, sizeof buffer)) return NOT_SUPPORTED; \
        if (strlen(buffer) >= size) return INSUFFICIENT_SIZE; \
        memcpy(out, buffer, strlen(buffer) + 1); return SUCCESS; }

/* ---- life, errors, system ---- */
Return nvmlInitWithFlags(unsigned flags) {
    char buffer[VALUE];
    (void)flags;
    hang();
    if (lookup("init_error", buffer, sizeof buffer) && atoi(buffer)) return atoi(buffer);
    if (!lookup("count", buffer, sizeof buffer)) return DRIVER_NOT_LOADED;
#ifdef LIBRARY_VERSION
    if (lookup("driver", buffer, sizeof buffer) && strcmp(buffer, LIBRARY_VERSION)) return LIB_RM_VERSION_MISMATCH;
#endif
    initialised++;
    return SUCCESS;
}
Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Return nvmlInit(void) { return nvmlInitWithFlags(0); }
Return nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}
const char *nvmlErrorString(Return result) {
    switch (result) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}
static Return system_text(const char *key, char *out, unsigned size) {
    char buffer[VALUE];
    Return result = ready();
    if (result) return result;
    if (!lookup(key, buffer, sizeof buffer)) return NOT_SUPPORTED;
    if (strlen(buffer) >= size) return INSUFFICIENT_SIZE;
    memcpy(out, buffer, strlen(buffer) + 1);
    return SUCCESS;
}
Return nvmlSystemGetDriverVersion(char *out, unsigned size) { return system_text("driver", out, size); }
Return nvmlSystemGetNVMLVersion(char *out, unsigned size) { return system_text("nvml", out, size); }
Return nvmlSystemGetCudaDriverVersion_v2(int *version) {
    char buffer[VALUE];
    Return result = system_text("cuda", buffer, sizeof buffer);
    if (!result) *version = atoi(buffer);
    return result;
}
Return nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

/* ---- finding a GPU ---- */
Return nvmlDeviceGetCount_v2(unsigned *out) {
    Return result = ready();
    if (!result) *out = count();
    return result;
}
Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    Return result = ready();
    if (result) return result;
    if (index >= count()) return INVALID_ARGUMENT;
    *out = &gpus[index];
    return usable(*out);
}
static Return by_text(const char *key, const char *wanted, Device *out) {
    char buffer[VALUE];
    Return result = ready();
    if (result) return result;
    for (unsigned index = 0; index < count(); index++)
        if (text(&gpus[index], key, buffer, sizeof buffer) && !strcasecmp(buffer, wanted)) {
            *out = &gpus[index];
            return usable(*out);
        }
    return NOT_FOUND;
}
Return nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) { return by_text("uuid", uuid, out); }
Return nvmlDeviceGetHandleBySerial(const char *serial, Device *out) { return by_text("serial", serial, out); }
Return nvmlDeviceGetHandleByPciBusId_v2(const char *bus, Device *out) { return by_text("bus_id", bus, out); }
Return nvmlDeviceGetIndex(Device device, unsigned *out) { USABLE(device); *out = (unsigned)device->index; return SUCCESS; }
NUMBER(nvmlDeviceGetMinorNumber, unsigned, "minor")
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetBoardPartNumber, "part_number")
TEXT(nvmlDeviceGetInforomImageVersion, "inforom")

struct pci_info { char legacy[16]; unsigned domain, bus, device, pci_device, subsystem; char bus_id[32]; };
Return nvmlDeviceGetPciInfo_v3(Device device, struct pci_info *out) {
    char bus_id[VALUE];
    long long value = 0;
    unsigned domain = 0, bus = 0, slot = 0;
    USABLE(device);
    GIVEN(out);
    memset(out, 0, sizeof *out);
    if (!text(device, "bus_id", bus_id, sizeof bus_id)) return NOT_SUPPORTED;
    if (sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) return UNKNOWN;
    out->domain = domain; out->bus = bus; out->device = slot;
    if (number(device, "pci_device", &value)) out->pci_device = (unsigned)value;
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", domain & 0xffff, bus & 0xff, slot & 0xff);
    snprintf(out->bus_id, sizeof out->bus_id, "%.31s", bus_id);
    return SUCCESS;
}

/* ---- temperature: Hopper and Ada report margins to the T.Limit, not degrees ---- */
static int margin(Device device, long long *out) {
    long long temperature, limit;
    if (number(device, "margin", out)) return 1;
    if (!number(device, "temp", &temperature) || !number(device, "tlimit.ref", &limit)) return 0;
    *out = limit - temperature;
    return 1;
}
Return nvmlDeviceGetTemperature(Device device, int sensor, unsigned *out) {
    long long value;
    USABLE(device);
    GIVEN(out);
    if (sensor) return INVALID_ARGUMENT;
    if (!number(device, "temp", &value)) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return SUCCESS;
}
struct temperature { unsigned version; int sensor, celsius; };
Return nvmlDeviceGetTemperatureV(Device device, struct temperature *out) {
    unsigned value;
    GIVEN(out);
    if (out->version != 0x100000C) return ARGUMENT_VERSION_MISMATCH;
    Return result = nvmlDeviceGetTemperature(device, out->sensor, &value);
    if (!result) out->celsius = (int)value;
    return result;
}
Return nvmlDeviceGetTemperatureThreshold(Device device, int which, unsigned *out) {
    static const char *keys[] = {"tlimit.shutdown", "tlimit.slowdown", "tlimit.mem_max", "tlimit.gpu_max"};
    long long offset, limit;
    USABLE(device);
    if (which < 0 || which > 3) return INVALID_ARGUMENT;
    if (!number(device, keys[which], &offset) || !number(device, "tlimit.ref", &limit)) return NOT_SUPPORTED;
    *out = (unsigned)(limit - offset);
    return SUCCESS;
}
struct margin { unsigned version; int celsius; };
Return nvmlDeviceGetMarginTemperature(Device device, struct margin *out) {
    long long value;
    USABLE(device);
    GIVEN(out);
    if (out->version != 0x1000008) return ARGUMENT_VERSION_MISMATCH;
    if (!margin(device, &value)) return NOT_SUPPORTED;
    out->celsius = (int)value;
    return SUCCESS;
}

enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3, SIGNED_INT = 5 };
struct field { unsigned id, scope; long long timestamp, latency; int type; Return result;
    union { double d; unsigned u; unsigned long long ull; int i; } value; };
Return nvmlDeviceGetFieldValues(Device device, int n, struct field *fields) {
    static const struct { unsigned id; const char *key; int type; } known[] = {
        {3, "ecc.sbe.vol", UNSIGNED_LONG_LONG}, {4, "ecc.dbe.vol", UNSIGNED_LONG_LONG}, {5, "ecc.sbe.agg", UNSIGNED_LONG_LONG},
        {6, "ecc.dbe.agg", UNSIGNED_LONG_LONG}, {82, "mem_temp", UNSIGNED_INT}, {142, "remap.corr", UNSIGNED_INT},
        {143, "remap.unc", UNSIGNED_INT}, {144, "remap.pending", UNSIGNED_INT}, {145, "remap.failure", UNSIGNED_INT},
        {193, "tlimit.shutdown", SIGNED_INT}, {194, "tlimit.slowdown", SIGNED_INT}, {195, "tlimit.mem_max", SIGNED_INT},
        {196, "tlimit.gpu_max", SIGNED_INT}, {230, "recovery_action", UNSIGNED_INT}};
    USABLE(device);
    GIVEN(fields);
    for (int i = 0; i < n; i++) {
        fields[i].result = NOT_SUPPORTED;
        fields[i].value.ull = 0;
        fields[i].timestamp = (long long)time(NULL) * 1000000;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            long long value;
            if (fields[i].id != known[k].id || !number(device, known[k].key, &value)) continue;
            fields[i].result = SUCCESS;
            fields[i].type = known[k].type;
            if (known[k].type == SIGNED_INT) fields[i].value.i = (int)value;
            else if (known[k].type == UNSIGNED_INT) fields[i].value.u = (unsigned)value;
            else fields[i].value.ull = (unsigned long long)value;
        }
    }
    return SUCCESS;
}

/* ---- power, clocks, links ---- */
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "reasons")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "reasons")
NUMBER(nvmlDeviceGetPowerUsage, unsigned, "power_mw")
NUMBER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, "energy_mj")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, "limit_mw")
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, "limit_mw")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, "limit_default_mw")
NUMBER(nvmlDeviceGetPersistenceMode, int, "persistence")
NUMBER(nvmlDeviceGetPerformanceState, int, "pstate")
NUMBER(nvmlDeviceGetComputeMode, int, "compute_mode")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "pcie.gen")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "pcie.width")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "pcie.gen_max")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "pcie.width_max")
NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned, "pcie.replay")
Return nvmlDeviceGetPowerManagementLimitConstraints(Device device, unsigned *least, unsigned *most) {
    long long low, high;
    USABLE(device);
    if (!number(device, "limit_min_mw", &low) || !number(device, "limit_max_mw", &high)) return NOT_SUPPORTED;
    *least = (unsigned)low;
    *most = (unsigned)high;
    return SUCCESS;
}
static Return clock_of(Device device, int kind, const char *suffix, unsigned *out) {
    static const char *kinds[] = {"graphics", "sm", "mem", "video"};
    char key[48];
    long long value;
    USABLE(device);
    if (kind < 0 || kind > 3) return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "clock.%s%s", kinds[kind], suffix);
    if (!number(device, key, &value)) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return SUCCESS;
}
Return nvmlDeviceGetClockInfo(Device device, int kind, unsigned *out) { return clock_of(device, kind, "", out); }
Return nvmlDeviceGetMaxClockInfo(Device device, int kind, unsigned *out) { return clock_of(device, kind, ".max", out); }

static int ask_for_limit(int index, unsigned milliwatts) {
    const char *path = getenv("NVML_STANDIN_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char message[64];
    int length = snprintf(message, sizeof message, "limit %d %u", index, milliwatts);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path ? path : "/run/twin/load.sock");
    int channel = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (channel < 0) return 0;
    ssize_t sent = sendto(channel, message, (size_t)length, 0, (struct sockaddr *)&address, sizeof address);
    close(channel);
    return sent == length;
}
Return nvmlDeviceSetPowerManagementLimit(Device device, unsigned milliwatts) {
    long long low, high, now;
    USABLE(device);
    if (geteuid()) return NO_PERMISSION;
    if (!number(device, "limit_min_mw", &low) || !number(device, "limit_max_mw", &high)) return NOT_SUPPORTED;
    if (milliwatts < low || milliwatts > high) return INVALID_ARGUMENT;
    if (!ask_for_limit(device->index, milliwatts)) return UNKNOWN;
    for (int tries = 0; tries < 100; tries++) {                       /* 2 s */
        if (number(device, "limit_mw", &now) && now == (long long)milliwatts) return SUCCESS;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    return TIMEOUT;
}
Return nvmlDeviceSetPersistenceMode(Device device, int mode) {       /* always on: nvidia-persistenced is a stand-in too */
    USABLE(device);
    if (geteuid()) return NO_PERMISSION;
    return mode == 1 ? SUCCESS : NOT_SUPPORTED;
}

/* ---- memory and what uses it ---- */
static void memory(Device device, long long *total, long long *reserved, long long *used) {
    *total = *reserved = *used = 0;
    number(device, "mem.total", total);
    number(device, "mem.reserved", reserved);
    number(device, "mem.used", used);
}
Return nvmlDeviceGetMemoryInfo(Device device, unsigned long long *out) {
    long long total, reserved, used;
    USABLE(device);
    memory(device, &total, &reserved, &used);
    out[0] = (unsigned long long)total;
    out[1] = (unsigned long long)(total - reserved - used);
    out[2] = (unsigned long long)(reserved + used);
    return SUCCESS;
}
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
Return nvmlDeviceGetMemoryInfo_v2(Device device, struct memory_v2 *out) {
    long long total, reserved, used;
    USABLE(device);
    memory(device, &total, &reserved, &used);
    out->total = (unsigned long long)total;
    out->reserved = (unsigned long long)reserved;
    out->used = (unsigned long long)used;
    out->free = (unsigned long long)(total - reserved - used);
    return SUCCESS;
}
Return nvmlDeviceGetUtilizationRates(Device device, unsigned *out) {
    long long gpu = 0, mem = 0;
    USABLE(device);
    number(device, "util.gpu", &gpu);
    number(device, "util.mem", &mem);
    out[0] = (unsigned)gpu;
    out[1] = (unsigned)mem;
    return SUCCESS;
}
/* `gpuN.processes=<pid>:<bytes>,<pid>:<bytes>` */
struct process { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; };
Return nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *n, struct process *out) {
    char buffer[VALUE] = "", *rest = buffer, *item;
    unsigned found = 0, room;
    USABLE(device);
    GIVEN(n);
    room = *n;
    text(device, "processes", buffer, sizeof buffer);
    while ((item = strsep(&rest, ","))) {
        unsigned pid;
        unsigned long long bytes;
        if (sscanf(item, "%u:%llu", &pid, &bytes) != 2) continue;
        if (found < room && out) out[found] = (struct process){pid, bytes, 0xFFFFFFFFu, 0xFFFFFFFFu};
        found++;
    }
    *n = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}
Return nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned *n, void *out) {
    (void)out;
    USABLE(device);
    *n = 0;
    return SUCCESS;
}
Return nvmlSystemGetProcessName(unsigned pid, char *out, unsigned size) {
    char path[48];
    Return result = ready();
    if (result) return result;
    snprintf(path, sizeof path, "/proc/%u/comm", pid);
    FILE *file = fopen(path, "re");
    if (!file) return NOT_FOUND;
    if (!fgets(out, (int)size, file)) out[0] = 0;
    fclose(file);
    out[strcspn(out, "\n")] = 0;
    return SUCCESS;
}

/* ---- errors of memory ---- */
Return nvmlDeviceGetTotalEccErrors(Device device, int kind, int counter, unsigned long long *out) {
    static const char *keys[2][2] = {{"ecc.sbe.vol", "ecc.sbe.agg"}, {"ecc.dbe.vol", "ecc.dbe.agg"}};
    long long value;
    USABLE(device);
    if ((kind | counter) & ~1) return INVALID_ARGUMENT;
    if (!number(device, keys[kind][counter], &value)) return NOT_SUPPORTED;
    *out = (unsigned long long)value;
    return SUCCESS;
}
Return nvmlDeviceGetMemoryErrorCounter(Device device, int kind, int counter, int place, unsigned long long *out) {
    (void)place;
    return nvmlDeviceGetTotalEccErrors(device, kind, counter, out);
}
static Return mode(Device device, const char *key, unsigned *current, unsigned *pending) {
    long long value;
    USABLE(device);
    if (!number(device, key, &value)) return NOT_SUPPORTED;
    *current = *pending = (unsigned)value;
    return SUCCESS;
}
Return nvmlDeviceGetEccMode(Device device, unsigned *current, unsigned *pending) { return mode(device, "ecc", current, pending); }
Return nvmlDeviceGetMigMode(Device device, unsigned *current, unsigned *pending) { return mode(device, "mig", current, pending); }
Return nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failure) {
    long long value[4] = {0};
    USABLE(device);
    if (!number(device, "remap.corr", &value[0])) return NOT_SUPPORTED;
    number(device, "remap.unc", &value[1]);
    number(device, "remap.pending", &value[2]);
    number(device, "remap.failure", &value[3]);
    *corrected = (unsigned)value[0]; *uncorrected = (unsigned)value[1];
    *pending = (unsigned)value[2]; *failure = (unsigned)value[3];
    return SUCCESS;
}
struct histogram { unsigned max, high, partial, low, none; };
Return nvmlDeviceGetRowRemapperHistogram(Device device, struct histogram *out) {
    long long banks;
    USABLE(device);
    if (!number(device, "remap.banks", &banks)) return NOT_SUPPORTED;
    *out = (struct histogram){.max = (unsigned)banks};
    return SUCCESS;
}

/* ---- passive boards have no fan of their own; media engines idle ---- */
Return nvmlDeviceGetFanSpeed(Device device, unsigned *out) { (void)out; USABLE(device); return NOT_SUPPORTED; }
Return nvmlDeviceGetNumFans(Device device, unsigned *out) { USABLE(device); *out = 0; return SUCCESS; }
Return nvmlDeviceGetEncoderUtilization(Device device, unsigned *a, unsigned *b) { USABLE(device); *a = *b = 0; return SUCCESS; }
Return nvmlDeviceGetDecoderUtilization(Device device, unsigned *a, unsigned *b) { USABLE(device); *a = *b = 0; return SUCCESS; }
Return nvmlDeviceGetNvLinkState(Device device, unsigned link, unsigned *active) {
    long long links;
    USABLE(device);
    if (!number(device, "nvlink.links", &links)) return NOT_SUPPORTED;
    if (link >= (unsigned)links) return INVALID_ARGUMENT;
    *active = 1;
    return SUCCESS;
}

/* ---- events ---- */
static FILE *xid_file(void) {
    char path[512];
    snprintf(path, sizeof path, "%s.xid", state_path());
    return fopen(path, "re");
}
Return nvmlEventSetCreate(EventSet **out) {
    Return result = ready();
    if (result) return result;
    EventSet *set = calloc(1, sizeof *set);
    if (!set) return UNKNOWN;
    FILE *file = xid_file();
    if (file) {
        if (!fseek(file, 0, SEEK_END)) set->offset = ftell(file);
        fclose(file);
    }
    *out = set;
    return SUCCESS;
}
Return nvmlEventSetFree(EventSet *set) { free(set); return SUCCESS; }
Return nvmlDeviceGetSupportedEventTypes(Device device, unsigned long long *types) { USABLE(device); *types = 0x1F; return SUCCESS; }
Return nvmlDeviceRegisterEvents(Device device, unsigned long long types, EventSet *set) {
    USABLE(device);
    GIVEN(set);
    set->types[device->index] |= types;
    return SUCCESS;
}
struct event { Device device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };
static int next_xid(EventSet *set, struct event *out) {
    char line[64];
    int found = 0;
    FILE *file = xid_file();
    if (!file) return 0;
    if (!fseek(file, set->offset, SEEK_SET))
        while (!found && fgets(line, sizeof line, file)) {
            int gpu;
            unsigned xid;
            if (!strchr(line, '\n')) break;                       /* a line still being written */
            set->offset = ftell(file);
            if (sscanf(line, "%d %u", &gpu, &xid) != 2 || gpu < 0 || gpu >= MAX_GPUS || !(set->types[gpu] & 8)) continue;
            *out = (struct event){&gpus[gpu], 8, xid, 0xFFFFFFFFu, 0xFFFFFFFFu};
            found = 1;
        }
    fclose(file);
    return found;
}
Return nvmlEventSetWait_v2(EventSet *set, struct event *out, unsigned milliseconds) {
    Return result = ready();
    if (result) return result;
    GIVEN(set);
    for (unsigned waited = 0;; waited += 20) {
        if (next_xid(set, out)) return SUCCESS;
        if (waited >= milliseconds) return TIMEOUT;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
}
Return nvmlEventSetWait(EventSet *set, struct event *out, unsigned milliseconds) { return nvmlEventSetWait_v2(set, out, milliseconds); }
