// Plays a script on the accelerator in its harness: first without a mutant, then once for each mutant,
// in a process of its own, and tells the first observation in which that one differs.
//
// Arguments: script, file of bytes that it loads, file that receives what was observed without a
// mutant, processes at a time, seconds that a mutant may take. Numbers of mutants come on the standard
// input. The script's lines are described in `sim.verify.script`.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Vparo_axi_bench.h"
#include "Vparo_axi_bench___024root.h"
#include "bench.h"
#include "verilated.h"
#if VM_COVERAGE
#include "verilated_cov.h"
#endif

namespace {

using Top = Vparo_axi_bench;
using Clock = std::chrono::steady_clock;

constexpr int kBusLimit = 2000;  // clocks that an access to a register may take
constexpr int kRestLimit = 20000; // reads of a register until it has a value
constexpr int kFirm = 0, kTimed = 1, kTied = 2;
constexpr int kMargin = 2000;    // clocks beyond twice those of the device without a mutant

const std::map<std::string, std::function<void(Top&, uint64_t)>> kSettings = {PARO_SETTINGS};

struct Step {
  std::string kind, name;
  uint64_t values[4] = {0, 0, 0, 0};
};

struct Observation {
  size_t step;
  const char* kind;
  int weight;  // of `sim.verify.script.Weight`
  uint64_t value;
};

std::vector<Step> script;
std::string data;

uint64_t mixed(uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

uint64_t digest(const uint8_t* bytes, size_t count) {
  uint64_t sum = count;
  for (; count >= 8; bytes += 8, count -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    sum = mixed(sum ^ word) + 0x9e3779b97f4a7c15u;
  }
  for (; count; bytes++, count--) sum = mixed(sum ^ *bytes) + 0x9e3779b97f4a7c15u;
  return sum;
}

class Player {
 public:
  // Without `wanted` it records; with it, it compares, and ends this process at a difference.
  Player(int mutant, const std::vector<Observation>* wanted, int output)
      : wanted_(wanted), mutant_(mutant), output_(output) {
    std::string argument = PARO_MUTANT + std::to_string(mutant);
    const char* arguments[] = {"bench", argument.c_str()};
    context_.commandArgs(2, arguments);
    top_ = std::make_unique<Top>(&context_);
  }

  std::vector<Observation> observed;
  std::string contents;  // all bytes that were checked
  uint64_t cycle = 0;

  void play() {
    top_->clk = 0;
    for (step_ = 0; step_ < script.size(); step_++) run(script[step_]);
  }

  void finish(const char* verdict, const Observation* wanted, uint64_t got) {
    size_t step = wanted ? wanted->step : step_;
    const char* kind = wanted ? wanted->kind : "";
    dprintf(output_, "%d %s %zu %s %llx %llx %llu\n", mutant_, verdict, step, *kind ? kind : "-",
            wanted ? (unsigned long long)wanted->value : 0ull, (unsigned long long)got,
            (unsigned long long)cycle);
    _exit(0);
  }

  // Keep the counts of coverage, if the bench was compiled to have any.
  void keep_coverage() {
#if VM_COVERAGE
    context_.coveragep()->write(PARO_COVERAGE);
#endif
  }

  void end() {
    if (late_)
      finish("timing", late_, late_value_);
    else
      finish("survived", nullptr, 0);
  }

 private:
  void run(const Step& step) {
    const uint64_t* v = step.values;
    if (step.kind == "set") kSettings.at(step.name)(*top_, v[0]);
    else if (step.kind == "load") memcpy(memory() + v[0], data.data() + v[1], v[2]);
    else if (step.kind == "write") write(v[0], v[1], v[2], (int64_t)v[3]);
    else if (step.kind == "read") read(v[0], v[1], v[2]);
    else if (step.kind == "pin") observe("interrupt", v[0], settled(top_->irq));
    else if (step.kind == "clocks") for (uint64_t i = 0; i < v[0]; i++) clock();
    else if (step.kind == "counted") counted(v[0]);
    else if (step.kind == "reset") reset(v[0]);
    else if (step.kind == "interrupt") interrupt(v[0]);
    else if (step.kind == "rest") rest(v[0], v[1], v[2]);
    else if (step.kind == "bursts") bursts(v[0]);
    else if (step.kind == "check") check(v[0], v[1], v[2]);
    else if (step.kind != "mark") {
      fprintf(stderr, "unknown step %s\n", step.kind.c_str());
      _exit(2);
    }
  }

  uint8_t* memory() { return reinterpret_cast<uint8_t*>(&top_->rootp->PARO_CONTENTS[0]); }

  // All counters as if they had counted so far.
  void counted(uint32_t value) {
    auto& root = *top_->rootp;
    PARO_COUNTED(value)
  }

  void clock() {
    top_->clk = 0;
    top_->eval();
    auto& root = *top_->rootp;
    if (PARO_WIRE(arvalid) && PARO_WIRE(arready))
      burst(1, PARO_WIRE(araddr), PARO_WIRE(arlen),
            PARO_WIRE(arid) << 16 | PARO_WIRE(arcache) << 8 | PARO_WIRE(arprot));
    if (PARO_WIRE(awvalid) && PARO_WIRE(awready))
      burst(2, PARO_WIRE(awaddr), PARO_WIRE(awlen),
            PARO_WIRE(awid) << 16 | PARO_WIRE(awcache) << 8 | PARO_WIRE(awprot));
    top_->clk = 1;
    top_->eval();
    cycle++;
    if (top_->violation) {
      if (!wanted_) {
        fprintf(stderr, "violation %d without a mutant\n", top_->violation);
        _exit(2);
      }
      Observation none{step_, "protocol", kFirm, 0};
      finish("killed", &none, top_->violation);
    }
  }

  void burst(uint64_t way, uint64_t address, uint64_t length, uint64_t rest) {
    uint64_t value = mixed(mixed(mixed(way << 32 | rest) ^ length) ^ address);
    bursts_ += value;
    order_ = mixed(order_ ^ value);
  }

  void observe(const char* kind, int weight, uint64_t value) {
    if (!wanted_) {
      observed.push_back({step_, kind, weight, value});
      return;
    }
    const Observation& wanted = (*wanted_)[place_++];
    if (wanted.value == value) return;
    if (wanted.weight == kFirm || (wanted.weight == kTied && !late_))
      finish("killed", &wanted, value);
    if (!late_) late_ = &wanted, late_value_ = value;
  }

  void hang(const char* kind) {
    if (!wanted_) {
      fprintf(stderr, "step %zu hangs without a mutant\n", step_);
      _exit(2);
    }
    Observation none{step_, kind, kFirm, 0};
    finish("killed", &none, 0);
  }

  void reset(uint64_t clocks) {
    top_->rst = 1;
    for (uint64_t i = 0; i < clocks; i++) clock();
    top_->rst = 0;
    clock();
  }

  // Address and data of a write, the later one by so many clocks: the address if positive.
  void write(uint64_t address, uint64_t value, uint64_t lanes, int64_t later) {
    bool addressed = false, given = false;
    top_->s_axil_awaddr = address;
    top_->s_axil_wdata = value;
    top_->s_axil_wstrb = lanes;
    top_->s_axil_bready = 1;
    for (int64_t t = 0; !addressed || !given; t++) {
      top_->s_axil_awvalid = !addressed && t >= later;
      top_->s_axil_wvalid = !given && t >= -later;
      top_->clk = 0;
      top_->eval();
      bool takes_address = top_->s_axil_awvalid && top_->s_axil_awready;
      bool takes_data = top_->s_axil_wvalid && top_->s_axil_wready;
      clock();
      // What is not offered means nothing.
      if (takes_address) addressed = true, top_->s_axil_awaddr = ~address & 0xfff;
      if (takes_data) given = true, top_->s_axil_wdata = ~value, top_->s_axil_wstrb = ~lanes & 15;
      if (t > kBusLimit) hang("hang of a write");
    }
    top_->s_axil_awvalid = top_->s_axil_wvalid = 0;
    for (int t = 0; !settled(top_->s_axil_bvalid); t++) {
      clock();
      if (t > kBusLimit) hang("hang of a write");
    }
    observe("response of a write", kFirm, top_->s_axil_bresp);
    clock();
    top_->s_axil_bready = 0;
  }

  // Value and response of a register, which is not the only one to wait for.
  uint32_t access(uint64_t address) {
    top_->s_axil_araddr = address;
    top_->s_axil_arvalid = top_->s_axil_rready = 1;
    for (int t = 0; !settled(top_->s_axil_arready); t++) {
      clock();
      if (t > kBusLimit) hang("hang of a read");
    }
    clock();
    top_->s_axil_arvalid = 0;
    top_->s_axil_araddr = ~address & 0xfff;
    for (int t = 0; !settled(top_->s_axil_rvalid); t++) {
      clock();
      if (t > kBusLimit) hang("hang of a read");
    }
    uint32_t value = top_->s_axil_rdata;
    response_ = top_->s_axil_rresp;
    clock();
    top_->s_axil_rready = 0;
    return value;
  }

  bool settled(const CData& signal) {
    top_->clk = 0;
    top_->eval();
    return signal;
  }

  void read(uint64_t address, uint64_t mask, int weight) {
    uint64_t value = access(address) & mask;
    observe("register", weight, value);
    observe("response of a read", kFirm, response_);
  }

  // Until the interrupt has a value; without a mutant it must come.
  void interrupt(uint64_t limit) {
    uint64_t waited = 0;
    if (wanted_) limit = 2 * (*wanted_)[place_].value + kMargin;
    for (; !top_->irq; waited++) {
      if (waited > limit) hang("hang");
      clock();
    }
    observe("cycles", kTimed, waited);
  }

  // Read a register until some of its bits have a value.
  void rest(uint64_t address, uint64_t mask, uint64_t wanted) {
    uint64_t reads = 0;
    while ((access(address) & mask) != wanted)
      if (++reads > kRestLimit) hang("hang");
    observe("cycles", kTimed, reads);
  }

  // Bursts since the last look: which ones, and in which order.
  void bursts(int weight) {
    observe("bursts", weight, bursts_);
    observe("order of bursts", kTimed, order_);
    bursts_ = order_ = 0;
  }

  void check(uint64_t address, uint64_t count, int weight) {
    observe("memory", weight, digest(memory() + address, count));
    if (!wanted_) contents.append(reinterpret_cast<char*>(memory() + address), count);
  }

  const std::vector<Observation>* wanted_;
  int mutant_, output_;
  VerilatedContext context_;
  std::unique_ptr<Top> top_;
  const Observation* late_ = nullptr;
  uint64_t late_value_ = 0;
  size_t step_ = 0, place_ = 0;
  uint64_t bursts_ = 0, order_ = 0;
  uint32_t response_ = 0;
};

void read_script(const char* path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Step step;
    words >> step.kind;
    if (step.kind == "set" || step.kind == "mark") words >> step.name;
    for (uint64_t& value : step.values) {
      std::string word;
      if (words >> word) value = word[0] == '-' ? std::stoll(word) : std::stoull(word, nullptr, 0);
    }
    script.push_back(step);
  }
}

struct Child {
  int mutant;
  pid_t process;
  int output;
  std::string line;
  Clock::time_point started;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Child begin(int mutant) {
  int ends[2];
  if (pipe(ends)) _exit(2);
  Child child{mutant, fork(), ends[0], "", Clock::now()};
  if (child.process == 0) {
    close(ends[0]);
    // What the model itself says, such as that it stops, is no answer.
    int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    child.output = ends[1];
    return child;
  }
  close(ends[1]);
  return child;
}

// Wait for one of some children; tell what it found.
void end_one(std::vector<Child>& children, double limit) {
  std::vector<pollfd> waiting;
  for (const Child& child : children) waiting.push_back({child.output, POLLIN, 0});
  poll(waiting.data(), waiting.size(), 200);
  for (size_t i = 0; i < children.size(); i++) {
    Child& child = children[i];
    bool late = seconds_since(child.started) > limit, ended = false;
    if (waiting[i].revents) {
      char text[256];
      ssize_t count = read(child.output, text, sizeof text);
      if (count > 0) child.line.append(text, count);
      ended = count <= 0;
    }
    if (!ended && !late) continue;
    if (late) kill(child.process, SIGKILL);
    int status = 0;
    waitpid(child.process, &status, 0);
    close(child.output);
    if (child.line.empty() || child.line.back() != '\n') {
      const char* kind = late ? "time" : "crash";
      child.line = std::to_string(child.mutant) + " killed 0 " + kind + " 0 0 0\n";
    }
    child.line.pop_back();
    printf("%s %.3f\n", child.line.c_str(), seconds_since(child.started));
    fflush(stdout);
    children.erase(children.begin() + i);
    return;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 6) return 2;
  read_script(arguments[1]);
  std::ifstream file(arguments[2], std::ios::binary);
  data.assign(std::istreambuf_iterator<char>(file), {});
  size_t most = std::atoi(arguments[4]);
  double limit = std::atof(arguments[5]);

  auto started = Clock::now();
  Player reference(0, nullptr, -1);
  reference.play();
  reference.keep_coverage();
  std::ofstream kept(arguments[3], std::ios::binary);
  for (const Observation& own : reference.observed)
    kept << own.step << ' ' << own.weight << ' ' << own.value << ' ' << own.kind << '\n';
  kept << "contents " << reference.contents.size() << '\n' << reference.contents;
  kept.close();
  if (!kept) return 2;
  printf("reference %llu %.3f\n", (unsigned long long)reference.cycle, seconds_since(started));
  fflush(stdout);

  std::vector<Child> children;
  int mutant;
  while (scanf("%d", &mutant) == 1) {
    while (children.size() >= most) end_one(children, limit);
    Child child = begin(mutant);
    if (child.process == 0) {
      Player player(mutant, &reference.observed, child.output);
      player.play();
      player.end();
    }
    children.push_back(child);
  }
  while (!children.empty()) end_one(children, limit);
  return 0;
}
