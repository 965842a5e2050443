// The main program of every Verilator model: calls the model and cocotb's callbacks in the order of simulation time,
// and toggles one clock itself, so that no callback is called for an edge that nobody waits for.
//
// At an edge the clock changes together with the values that cocotb has deposited. Callbacks on the change come before
// the model is evaluated: they see what the registers held before the edge.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_vpi.h"
#if VM_COVERAGE
#include "verilated_cov.h"
#endif
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Waves = VerilatedFstC;
static const char* const WAVES_FILE = "dump.fst";
#elif VM_TRACE
#include "verilated_vcd_c.h"
using Waves = VerilatedVcdC;
static const char* const WAVES_FILE = "dump.vcd";
#endif
#if VM_TRACE
static std::unique_ptr<Waves> waves;  // takes the time unit of the model, which is there before
#endif

namespace {

constexpr uint64_t NEVER = ~0ULL;

struct Clock {
    CData* signal = nullptr;
    CData level = 0;  // after the next edge
    uint64_t half_period = 0;
    uint64_t next_edge = NEVER;
} clock_;

// Calls cocotb's callbacks on changed values, which may change others.
void call_value_callbacks() {
    while (VerilatedVpi::callValueCbs()) {
    }
}

// Deposited values and a clock edge that is due become visible. Returns whether the model must be evaluated.
bool change_inputs(uint64_t now) {
    VerilatedVpi::doInertialPuts();
    const bool edge = clock_.next_edge <= now;
    if (edge) {
        *clock_.signal = clock_.level;
        clock_.level ^= 1;
        clock_.next_edge = now + clock_.half_period;
    }
    call_value_callbacks();
    return edge || VerilatedVpi::evalNeeded();
}

void evaluate(Vtop& top) {
    top.eval_step();
    VerilatedVpi::clearEvalNeeded();
}

// Everything that happens at one time.
void settle(Vtop& top, uint64_t now) {
    do {
        do {
            evaluate(top);
        } while (change_inputs(now));
    } while (VerilatedVpi::callCbs(cbReadWriteSynch) && change_inputs(now));
    top.eval_end_step();
    VerilatedVpi::callCbs(cbReadOnlySynch);
}

// What cocotb does before anything else happens at this time.
void call_timed_callbacks(Vtop& top) {
    if (VerilatedVpi::callCbs(cbNextSimTime)) call_value_callbacks();
    if (VerilatedVpi::callCbs(cbAfterDelay)) call_value_callbacks();
    if (VerilatedVpi::evalNeeded()) evaluate(top);
}

void end_simulation(void*) {
    VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
    if (waves) waves->close();
#endif
#if VM_COVERAGE
    VerilatedCov::write();
#endif
}

}  // namespace

// For host/harness/clocking.py: drive an input of the top level with 1 from now on, and toggle it every `half_period`
// steps.
extern "C" void start_clock(const char* name, uint64_t half_period) {
    const VerilatedContext* const context = Verilated::threadContextp();
    void* const input = context->scopeFind("TOP")->varFind(name)->datap();
    clock_ = {static_cast<CData*>(input), 1, half_period, context->time()};
}

// The clock keeps its level.
extern "C" void stop_clock() { clock_.next_edge = NEVER; }

extern "C" void vlog_startup_routines_bootstrap();  // of cocotb

double sc_time_stamp() { return 0; }  // Verilator asks for it at time 0 only

int main(int argc, char** argv) {
    VerilatedContext* const context = Verilated::threadContextp();
    context->commandArgs(argc, argv);
    context->fatalOnVpiError(false);  // cocotb asks for names that may not exist
#if VM_TRACE
    context->traceEverOn(true);
#endif
    const auto top = std::make_unique<Vtop>(context, "");
#if VM_TRACE
    if (argc > 1 && std::strcmp(argv[1], "--trace") == 0) {
        waves = std::make_unique<Waves>();
        top->trace(waves.get(), 99);
        waves->open(WAVES_FILE);
    }
#endif
    vlog_startup_routines_bootstrap();
    Verilated::addExitCb(end_simulation, nullptr);
    VerilatedVpi::callCbs(cbStartOfSimulation);
    call_value_callbacks();

    while (!context->gotFinish()) {
        settle(*top, context->time());
#if VM_TRACE
        if (waves) waves->dump(context->time());
#endif
        const uint64_t callback = VerilatedVpi::cbNextDeadline();
        const uint64_t next = callback < clock_.next_edge ? callback : clock_.next_edge;
        if (next == NEVER) break;
        context->time(next);
        call_timed_callbacks(*top);
        change_inputs(next);
    }

    top->final();
    end_simulation(nullptr);
    return context->errorCount() > 0;
}
