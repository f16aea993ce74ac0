// A simulated board: the serial line of the SoC, bit by bit, on a TCP port of this machine or on a
// pseudo-terminal. A byte on its standard input is a press of its reset button; ends when that does.
//
// Arguments: "tcp" or "pty", the port (0: any), and what the phase of a bit grows by in a clock, in
// units of 2^-32. Prints a line of JSON when it can be reached, and one whenever a host leaves.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <deque>

#include "Vparo_board.h"
#include "verilated.h"

namespace {

constexpr int kClocks = 256;          // between two looks at the host
constexpr uint64_t kQuiet = 400000;   // clocks without a byte after which it slows down
constexpr size_t kMostWaiting = 4096; // bytes of the host that are taken ahead
constexpr int kRest = 100;            // milliseconds between two looks when it has slowed down
constexpr int kPressed = 8;           // looks at the host for which the reset button is pressed
uint32_t step;                        // of the phase, in a clock

struct ToBoard {  // a byte to the board's pin rx
  std::deque<uint8_t> waiting;
  uint32_t phase = 0, frame = 0;
  int left = 0;
  int pin = 1;
  void clock() {
    uint32_t before = phase;
    phase += step;
    if (phase >= before) return;
    if (left == 0 && !waiting.empty()) {
      frame = 0x200u | static_cast<uint32_t>(waiting.front()) << 1;
      waiting.pop_front();
      left = 10;
    }
    if (left == 0) return;
    pin = frame & 1;
    frame >>= 1;
    --left;
  }
};

struct FromBoard {  // a byte from the board's pin tx
  std::deque<uint8_t> done;
  uint32_t phase = 0, frame = 0;
  int left = 0;
  int before = 1;
  void clock(int pin) {
    if (left == 0) {
      if (before && !pin) {
        left = 10;
        phase = 0x80000000u;
        frame = 0;
      }
    } else {
      uint32_t last = phase;
      phase += step;
      if (phase < last) {
        frame |= static_cast<uint32_t>(pin) << (10 - left);
        if (--left == 0 && (frame & 0x200u)) done.push_back(static_cast<uint8_t>(frame >> 1));
      }
    }
    before = pin;
  }
};

int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) || listen(fd, 1)) return -1;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  printf("{\"tcp\": %d}\n", ntohs(address.sin_port));
  return fd;
}

int open_terminal() {
  int fd = posix_openpt(O_RDWR | O_NOCTTY);
  if (fd < 0 || grantpt(fd) || unlockpt(fd)) return -1;
  // Held open, so that a host may come and go.
  int other = open(ptsname(fd), O_RDWR | O_NOCTTY);
  termios settings{};
  tcgetattr(other, &settings);
  cfmakeraw(&settings);
  tcsetattr(other, TCSANOW, &settings);
  printf("{\"pty\": \"%s\"}\n", ptsname(fd));
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  signal(SIGPIPE, SIG_IGN);
  bool terminal = !strcmp(argv[1], "pty");
  step = static_cast<uint32_t>(strtoul(argv[3], nullptr, 10));
  int listener = terminal ? -1 : listen_on(atoi(argv[2]));
  int host = terminal ? open_terminal() : -1;
  if (terminal ? host < 0 : listener < 0) {
    perror("cannot be reached");
    return 1;
  }
  fflush(stdout);

  VerilatedContext context;
  Vparo_board top(&context);
  ToBoard to_board;
  FromBoard from_board;
  top.sim_trace = 0;
  uint64_t clocks = 0, last_byte = 0, first_byte = 0, received = 0, sent = 0;
  uint8_t buffer[1024];
  int pressed = 0;
  for (;;) {
    top.reset = pressed > 0;
    if (pressed > 0) --pressed;
    for (int i = 0; i < kClocks; ++i) {
      to_board.clock();
      top.serial_rx = static_cast<uint8_t>(to_board.pin);
      top.sys_clk = 1;
      top.eval();
      top.sys_clk = 0;
      top.eval();
      from_board.clock(top.serial_tx);
    }
    clocks += kClocks;
    if (to_board.left || !to_board.waiting.empty() || from_board.left) last_byte = clocks;
    bool quiet = clocks - last_byte > kQuiet;
    pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {host >= 0 ? host : listener, POLLIN, 0}};
    bool room = to_board.waiting.size() < kMostWaiting;
    if (!room && host >= 0) fds[1].events = 0;
    if (poll(fds, 2, quiet ? kRest : 0) < 0) return 1;
    if (fds[0].revents) {
      if (read(STDIN_FILENO, buffer, sizeof buffer) <= 0) return 0;
      pressed = kPressed;
    }
    if (host < 0) {
      from_board.done.clear();
      if (fds[1].revents & POLLIN) {
        int yes = 1;
        host = accept(listener, nullptr, nullptr);
        setsockopt(host, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        first_byte = received = sent = 0;
      }
      continue;
    }
    bool gone = false;
    if (fds[1].revents) {
      ssize_t got = read(host, buffer, sizeof buffer);
      gone = got <= 0;
      for (ssize_t i = 0; i < got; ++i) to_board.waiting.push_back(buffer[i]);
      if (got > 0) {
        if (!received) first_byte = clocks;
        received += static_cast<uint64_t>(got);
        last_byte = clocks;
      }
    }
    if (!from_board.done.empty() && !gone) {
      size_t count = 0;
      while (count < sizeof buffer && !from_board.done.empty()) {
        buffer[count++] = from_board.done.front();
        from_board.done.pop_front();
      }
      gone = write(host, buffer, count) != static_cast<ssize_t>(count);
      sent += count;
    }
    if (gone) {
      printf("{\"clocks\": %llu, \"received\": %llu, \"sent\": %llu}\n",
             static_cast<unsigned long long>(last_byte - first_byte),
             static_cast<unsigned long long>(received), static_cast<unsigned long long>(sent));
      fflush(stdout);
      if (terminal) continue;
      close(host);
      host = -1;
    }
  }
}
