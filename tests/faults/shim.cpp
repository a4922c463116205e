// Faults on purpose: a library that is loaded before the C library (LD_PRELOAD) and counts the calls
// that change files below one folder, and lets the n-th of them fail. A file's renaming is a call of
// the kernel that no library sees; the sync of its folder, which follows, is seen. So a power cut
// between the two never takes a renaming back, as a real one may: the old file would be there again,
// which is what a cut before the renaming leaves.
//
// Environment: FAULT_BELOW, the folder; FAULT_AT, the number of the call, from 1 (0: none);
// FAULT_LOG, a file that gets a line for each call; FAULT_THREADS=A-B, the numbers of the threads that
// cannot be started; FAULT_FLOCK, the number of the error of every lock; FAULT_FSYNC=A-B, those of
// every sync of files and of folders (0: none); FAULT_KIND:
//   cut    the process ends before the call, as in a power cut that loses nothing
//   lose   the same, and what was written but not synced is gone
//   full   this call and every later one that needs room fails with ENOSPC
//   broken the call fails with EIO
//   signal the call fails with EINTR, if it is one that may
//   short  a write takes half of its bytes
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

namespace {

std::string text(const char* name) {
    const char* value = getenv(name);
    return value ? value : "";
}

template <class F>
F next(const char* name) {
    return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// A file that was written: a descriptor that stays open, and its length when it was synced last.
struct Written {
    int fd;
    off_t synced;
};

struct Faults {
    std::string below = text("FAULT_BELOW"), kind = text("FAULT_KIND");
    long at = atol(text("FAULT_AT").c_str());
    std::atomic<long> calls{0};
    std::mutex mutex;
    std::map<std::pair<dev_t, ino_t>, Written> written;
};

Faults& faults() {
    static Faults* all = new Faults;
    return *all;
}

bool concerns(const std::string& path) {
    const std::string& below = faults().below;
    return !below.empty() && path.compare(0, below.size(), below) == 0;
}

std::string path_of(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof path);
    return std::string(path, length < 0 ? 0 : length);
}

std::string absolute(const char* path) {
    char folder[PATH_MAX];
    if (path[0] == '/' || !getcwd(folder, sizeof folder)) return path;
    return std::string(folder) + "/" + path;
}

off_t length(int fd) {
    struct stat file;
    return fstat(fd, &file) == 0 ? file.st_size : 0;
}

void will_write(int fd) {
    struct stat file;
    if (faults().kind != "lose" || fstat(fd, &file) != 0) return;
    std::lock_guard<std::mutex> lock(faults().mutex);
    const auto number = std::make_pair(file.st_dev, file.st_ino);
    if (!faults().written.count(number)) {
        faults().written[number] = {fcntl(fd, F_DUPFD_CLOEXEC, 3), file.st_size};
    }
}

void has_synced(int fd) {
    struct stat file;
    if (fstat(fd, &file) != 0) return;
    std::lock_guard<std::mutex> lock(faults().mutex);
    const auto found = faults().written.find(std::make_pair(file.st_dev, file.st_ino));
    if (found != faults().written.end()) found->second.synced = file.st_size;
}

void lose() {
    std::lock_guard<std::mutex> lock(faults().mutex);
    for (const auto& entry : faults().written) {
        const Written& file = entry.second;
        if (length(file.fd) > file.synced && ftruncate(file.fd, file.synced) != 0) abort();
    }
}

// Counts a call. True: it is to fail, with `errno` set. `needs`: it needs room on the disk.
bool fails(const char* call, const std::string& path, bool needs) {
    if (!concerns(path)) return false;
    Faults& all = faults();
    const long number = ++all.calls;
    const std::string log = text("FAULT_LOG");
    if (!log.empty()) {
        const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
        dprintf(fd, "%s %s\n", call, path.c_str());
        close(fd);
    }
    if (all.at == 0 || number < all.at || (number > all.at && all.kind != "full")) return false;
    if (all.kind == "cut" || all.kind == "lose") {
        if (all.kind == "lose") lose();
        _exit(137);
    }
    errno = all.kind == "full" ? ENOSPC : all.kind == "broken" ? EIO : EINTR;
    const bool waits = strcmp(call, "mkdir") != 0 && strcmp(call, "unlink") != 0;
    return all.kind == "full" ? needs : all.kind == "signal" ? waits : all.kind == "broken";
}

// Whether the file system cannot sync what `fd` is, with `errno` set.
bool cannot_sync(int fd) {
    int of_file = 0, of_folder = 0;
    sscanf(text("FAULT_FSYNC").c_str(), "%d-%d", &of_file, &of_folder);
    struct stat file;
    if (!concerns(path_of(fd)) || fstat(fd, &file) != 0) return false;
    const int lacks = S_ISDIR(file.st_mode) ? of_folder : of_file;
    if (lacks) errno = lacks;
    return lacks != 0;
}

// Bytes of a write that are taken: half of them, where that is the fault.
size_t taken(size_t bytes) {
    const Faults& all = faults();
    return all.kind == "short" && all.calls == all.at && bytes > 1 ? bytes / 2 : bytes;
}

int open_by(const char* name, int folder, const char* path, int flags, va_list more) {
    const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    const bool changes = flags & (O_CREAT | O_TRUNC);
    if (changes && fails("open", absolute(path), true)) return -1;
    return next<int (*)(int, const char*, int, ...)>(name)(folder, path, flags, mode);
}

}  // namespace

#define OPEN(name, at)                                           \
    API int name(const char* path, int flags, ...) {             \
        va_list more;                                            \
        va_start(more, flags);                                   \
        const int fd = open_by(at, AT_FDCWD, path, flags, more); \
        va_end(more);                                            \
        return fd;                                               \
    }
OPEN(open, "openat")
OPEN(open64, "openat64")

API ssize_t write(int fd, const void* from, size_t bytes) {
    if (fails("write", path_of(fd), true)) return -1;
    will_write(fd);
    return next<ssize_t (*)(int, const void*, size_t)>("write")(fd, from, taken(bytes));
}

API ssize_t pwrite64(int fd, const void* from, size_t bytes, off64_t at) {
    if (fails("pwrite", path_of(fd), true)) return -1;
    will_write(fd);
    return next<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64")(fd, from, taken(bytes),
                                                                            at);
}

API int flock(int fd, int how) {
    const int lacks = atoi(text("FAULT_FLOCK").c_str());
    if (lacks && concerns(path_of(fd))) return errno = lacks, -1;
    return next<int (*)(int, int)>("flock")(fd, how);
}

API int fsync(int fd) {
    if (fails("fsync", path_of(fd), true) || cannot_sync(fd)) return -1;
    const int done = next<int (*)(int)>("fsync")(fd);
    has_synced(fd);
    return done;
}

API int fdatasync(int fd) {
    if (fails("fdatasync", path_of(fd), true) || cannot_sync(fd)) return -1;
    const int done = next<int (*)(int)>("fdatasync")(fd);
    has_synced(fd);
    return done;
}

API int rename(const char* from, const char* to) {
    if (fails("rename", absolute(to), false)) return -1;
    return next<int (*)(const char*, const char*)>("rename")(from, to);
}

API int unlink(const char* path) {
    if (fails("unlink", absolute(path), false)) return -1;
    return next<int (*)(const char*)>("unlink")(path);
}

API int mkdir(const char* path, mode_t mode) {
    if (fails("mkdir", absolute(path), true)) return -1;
    return next<int (*)(const char*, mode_t)>("mkdir")(path, mode);
}

API int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                       void* argument) {
    static std::atomic<long> started{0};
    long first = 0, last = 0;
    sscanf(text("FAULT_THREADS").c_str(), "%ld-%ld", &first, &last);
    const long number = ++started;
    if (first <= number && number <= last) return EAGAIN;
    return next<int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>(
        "pthread_create")(thread, attributes, start, argument);
}
