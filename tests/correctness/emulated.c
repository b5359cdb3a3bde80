/* Calls one function of a shared object on memory that it reads, and writes that memory back.

   arguments   object, function; for a step also the number of threads and the runtime's object
   input       i64 areas, relocations; then each area: i64 bytes, contents; then each relocation:
               i64 area, byte, other area: the address of the other area belongs there
   output      the contents of all areas

   Area 0 is the table of arguments. Every area ends where an inaccessible page begins. A step is
   called by the runtime's lamina_run, after as many workers have started as it needs. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

typedef struct { char *start; int64_t bytes; } Area;

static void fail(const char *text) { fprintf(stderr, "%s\n", text); exit(3); }

static void *found(void *library, const char *name) {
  void *address = dlsym(library, name);
  if (!address) fail(name);
  return address;
}

static void *opened(const char *path) {
  void *library = dlopen(path, RTLD_NOW);
  if (!library) fail(dlerror());
  return library;
}

static int64_t number(void) {
  int64_t value;
  if (fread(&value, 8, 1, stdin) != 1) fail("the input ends too early");
  return value;
}

static Area area(void) {
  int64_t bytes = number(), whole = (bytes + PAGE - 1) / PAGE * PAGE;
  char *base = mmap(0, whole + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(base + whole, PAGE, PROT_NONE)) fail("no memory");
  Area result = {base + whole - bytes, bytes};
  if (bytes && fread(result.start, bytes, 1, stdin) != 1) fail("the input ends too early");
  return result;
}

typedef struct { void (*work)(void *, int64_t); char *sync; int64_t thread; } Worker;

static void *life(void *given) {
  Worker *worker = given;
  worker->work(worker->sync, worker->thread);
  return 0;
}

/* The sync area of the pool; whoever compiles this defines its offsets, from lamina.llvm.runtime. */
static void threaded(void *entry, void *words, int64_t threads, void *library) {
  static char sync[1 << 16] __attribute__((aligned(128)));
  static Worker workers[64];
  pthread_t thread;
  void *system[] = {syscall, syscall, clock_gettime};
  *(void **)(sync + SLEEP) = found(library, "lamina_sleep");
  *(void **)(sync + WAKE) = found(library, "lamina_wake");
  *(void **)(sync + NANOSECONDS) = found(library, "lamina_time");
  *(int64_t *)(sync + SPIN) = 1000;
  memcpy(sync + SYSTEM, system, sizeof system);
  *(int64_t *)(sync + NUMBER) = FUTEX;
  *(char **)words = sync;
  for (int64_t i = 1; i < threads; i++) {
    workers[i] = (Worker){found(library, "lamina_worker"), sync, i};
    if (pthread_create(&thread, 0, life, &workers[i])) fail("no thread");
  }
  int64_t (*run)(void *, void *, void *, int64_t) = found(library, "lamina_run");
  if (run(sync, entry, words, threads) != threads) fail("the workers were not used");
}

int main(int count, char **given) {
  int64_t areas = number(), relocations = number();
  Area *memory = calloc(areas, sizeof *memory);
  for (int64_t i = 0; i < areas; i++) memory[i] = area();
  for (int64_t i = 0; i < relocations; i++) {
    int64_t from = number(), byte = number(), to = number();
    *(char **)(memory[from].start + byte) = memory[to].start;
  }
  void *entry = found(opened(given[1]), given[2]);
  void **a = (void **)memory[0].start;
  if (count > 3) {
    threaded(entry, a[0], atoll(given[3]), opened(given[4]));
  } else {
    void (*call)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                 void *, void *, void *, void *, void *, void *) = entry;
    call(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
         a[14], a[15]);
  }
  for (int64_t i = 0; i < areas; i++) fwrite(memory[i].start, 1, memory[i].bytes, stdout);
  fflush(stdout);
  _exit(0); /* the workers sleep for good */
}
