// The device under Verilator, with a memory of its own, for programs in C: main runs the example of
// an exported folder and compares the memory with expected.hex.
#include <cstdint>
#include <cstdio>
#include <deque>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "Vdevice.h"
#include "verilated.h"

extern "C" {
#include "paro_driver.h"
int run_example(void* context, struct paro_device* device, struct paro_error* error);
uint32_t board_read(void* context, uint32_t offset);
void board_write(void* context, uint32_t offset, uint32_t value);
}

static const int LANES = 4;  // words of a beat

static std::vector<uint8_t> contents(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Burst {
  uint64_t address;
  int beats;
};

struct Device {
  VerilatedContext context;
  Vdevice top{&context};
  uint64_t base;
  std::vector<uint8_t> memory;
  std::deque<Burst> reads, writes;
  int answers = 0;
  bool refuse_writes = false;

  uint32_t word(uint64_t address) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
      if (address - base + i < memory.size()) value |= uint32_t(memory[address - base + i]) << 8 * i;
    return value;
  }

  // One cycle: what stands at the ports is taken at the edge.
  void step() {
    top.m_axi_arready = top.m_axi_awready = 1;
    top.m_axi_rvalid = !reads.empty();
    if (!reads.empty()) {
      for (int i = 0; i < LANES; i++) top.m_axi_rdata[i] = word(reads.front().address + 4 * i);
      top.m_axi_rlast = reads.front().beats == 1;
    }
    top.m_axi_wready = !writes.empty();
    top.m_axi_bvalid = answers > 0;
    top.m_axi_bresp = refuse_writes ? 2 : 0;
    top.clk = 0;
    top.eval();
    if (top.m_axi_rvalid && top.m_axi_rready) {
      reads.front().address += 4 * LANES;
      if (--reads.front().beats == 0) reads.pop_front();
    }
    if (top.m_axi_wvalid && top.m_axi_wready) {
      Burst& burst = writes.front();
      for (int i = 0; i < 4 * LANES; i++)
        if (top.m_axi_wstrb >> i & 1)
          memory.at(burst.address - base + i) = top.m_axi_wdata[i / 4] >> 8 * (i % 4);
      burst.address += 4 * LANES;
      if (top.m_axi_wlast) writes.pop_front(), answers++;
    }
    if (top.m_axi_bvalid && top.m_axi_bready) answers--;
    if (top.m_axi_arvalid) reads.push_back({top.m_axi_araddr, top.m_axi_arlen + 1});
    if (top.m_axi_awvalid) writes.push_back({top.m_axi_awaddr, top.m_axi_awlen + 1});
    top.clk = 1;
    top.eval();
  }
};

uint32_t board_read(void* context, uint32_t offset) {
  Device& device = *static_cast<Device*>(context);
  Vdevice& top = device.top;
  top.s_axil_araddr = offset;
  top.s_axil_arvalid = top.s_axil_rready = 1;
  top.eval();
  while (!top.s_axil_arready) device.step();
  device.step();
  top.s_axil_arvalid = 0;
  while (!top.s_axil_rvalid) device.step();
  uint32_t value = top.s_axil_rdata;
  device.step();
  top.s_axil_rready = 0;
  for (int i = 0; i < 100; i++) device.step();  // a program is slower than the device
  return value;
}

void board_write(void* context, uint32_t offset, uint32_t value) {
  Device& device = *static_cast<Device*>(context);
  Vdevice& top = device.top;
  top.s_axil_awaddr = offset;
  top.s_axil_wdata = value;
  top.s_axil_wstrb = 15;
  top.s_axil_awvalid = top.s_axil_wvalid = top.s_axil_bready = 1;
  bool address = false, data = false;
  while (!address || !data) {
    top.eval();
    bool takes_address = top.s_axil_awvalid && top.s_axil_awready;
    bool takes_data = top.s_axil_wvalid && top.s_axil_wready;
    device.step();
    if (takes_address) top.s_axil_awvalid = 0, address = true;
    if (takes_data) top.s_axil_wvalid = 0, data = true;
  }
  while (!top.s_axil_bvalid) device.step();
  device.step();
  top.s_axil_bready = 0;
}

// Arguments: the memory's address; "refuse" to answer writes with errors.
int main(int count, char** arguments) {
  Device device;
  device.base = strtoull(arguments[1], nullptr, 0);
  device.memory = contents("memory.bin");
  device.refuse_writes = count > 2;
  device.top.rst = 1;
  for (int i = 0; i < 4; i++) device.step();
  device.top.rst = 0;
  struct paro_device driver;
  struct paro_error error = {PARO_CAUSE_NONE, 0, 0};
  int result = run_example(&device, &driver, &error);
  if (result == PARO_FAILED) {
    printf("job %u at %llx: %s\n", error.job, (unsigned long long)error.address,
           paro_cause_text(error.cause));
    return paro_reset(&driver, 1000) == PARO_OK ? 3 : 4;
  }
  if (result != PARO_OK) {
    printf("result %d\n", result);
    return 2;
  }
  struct paro_stage_cycles stage = paro_stage(&driver, 0, PARO_STAGE_QK);
  printf("jobs %u cycles %llu qk %u\n", paro_jobs_done(&driver),
         (unsigned long long)paro_cycles(&driver), stage.busy);
  std::ifstream expected("expected.hex");
  int words = 0, wrong = 0;
  for (std::string line; std::getline(expected, line); words++) {
    uint64_t address = std::stoull(line.substr(0, 10), nullptr, 16);
    uint32_t mask = std::stoul(line.substr(10, 2), nullptr, 16), bytes = 0;
    for (int i = 0; i < 4; i++)
      if (mask >> i & 1) bytes |= 0xffu << 8 * i;
    uint32_t want = std::stoul(line.substr(12), nullptr, 16);
    if ((device.word(address) ^ want) & bytes) wrong++;
  }
  printf("%d of %d words wrong\n", wrong, words);
  return words == 0 || wrong != 0;
}
