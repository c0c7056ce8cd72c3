// The first and only process of the emulated machine: runs /program, which the kernel's command line
// names with its arguments, with /dev/ttyS1 as its output; writes its exit status there, as a last line;
// switches the machine off.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void open_output(void) {
  mkdir("/dev", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  const int port = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
  struct termios raw;
  tcgetattr(port, &raw);
  cfmakeraw(&raw);
  cfsetspeed(&raw, B115200);
  tcsetattr(port, TCSANOW, &raw);
  dup2(port, STDOUT_FILENO);
  dup2(port, STDERR_FILENO);
}

// As a shell has it: 128 and the signal's number where one ended it.
static int status_of(char** program) {
  const pid_t child = fork();
  if (child == 0) {
    execv(program[0], program);
    perror("program, which must be statically linked");
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Bochs ends when it reads this word at this port.
static void switch_off(void) {
  ioperm(0x8900, 1, 1);
  for (const char* letter = "Shutdown"; *letter; ++letter) outb((unsigned char)*letter, 0x8900);
}

int main(int argc, char** argv) {
  open_output();
  mkdir("/proc", 0755);
  mount("proc", "/proc", "proc", 0, "");
  // Before it are parameters that the kernel does not know.
  char** program = argv;
  while (program < argv + argc && strcmp(*program, "/program") != 0) ++program;
  printf("\nexit status %d\n", status_of(program));
  fflush(stdout);
  tcdrain(STDOUT_FILENO);
  switch_off();
  for (;;) pause();
}
