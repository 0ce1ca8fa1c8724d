/*
 * Preloaded into Redis: passes fsync and fdatasync on, and writes down what has been synced once they have succeeded.
 *
 * A line holds the file's inode and the length that it had when the sync began: so much of it outlasts a power loss. What is
 * appended while a sync runs may or may not be covered by it, and is not counted. Lines go to the file that FAULTS_SYNCED
 * names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static int passed_on(const char *name, int file)
{
    struct stat before;
    int known = fstat(file, &before) == 0 && S_ISREG(before.st_mode);
    int result = ((sync_call)dlsym(RTLD_NEXT, name))(file);
    int error = errno;
    const char *path = getenv("FAULTS_SYNCED");
    if (result == 0 && known && path != NULL) {
        char line[64];
        int length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)before.st_ino,
                              (unsigned long long)before.st_size);
        int log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        /* A line that cannot be written makes the loss look larger than it is, never smaller. */
        if (log >= 0) {
            if (write(log, line, (size_t)length) < 0) { }
            close(log);
        }
    }
    errno = error;
    return result;
}

int fsync(int file) { return passed_on("fsync", file); }

int fdatasync(int file) { return passed_on("fdatasync", file); }
