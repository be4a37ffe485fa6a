/*
 * step_machine.c: the parts of single-stepping that differ between x86-64 and arm64.
 *
 * Called by step.c, in the tracer; step_call_marked() runs in the traced child. On arm64 a step
 * clears the exclusive monitor, so a load-exclusive / store-exclusive loop never ends under
 * stepping: build with LSE atomics there (steps_max ends the attempt otherwise).
 */
#include "test/support/step_internal.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

pid_t step_wait(pid_t pid, int *ret_status)
{
    pid_t result;

    do
        result = waitpid(pid, ret_status, __WALL);
    while (result < 0 && errno == EINTR);
    return result;
}

bool step_is_stop_signal(int sig)
{
    return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

#if defined(__x86_64__)

__asm__(".text\n"
        ".globl step_call_marked, step_mark_begin, step_mark_end\n"
        ".hidden step_call_marked, step_mark_begin, step_mark_end\n"
        ".type step_call_marked, @function\n"
        "step_call_marked:\n"
        "    pushq %rbx\n" /* aligns the stack for the call */
        "    movq %rdi, %rax\n"
        "    movq %rsi, %rdi\n"
        "    int3\n"
        "step_mark_begin:\n"
        "    call *%rax\n"
        "step_mark_end:\n"
        "    popq %rbx\n"
        "    ret\n"
        ".size step_call_marked, . - step_call_marked\n");

bool step_machine_supported(void)
{
    return true;
}

bool step_get_pc(pid_t pid, uintptr_t *ret_pc)
{
    long value;

    errno = 0;
    value = ptrace(PTRACE_PEEKUSER, pid, (void *)offsetof(struct user, regs.rip), NULL);
    if (value == -1 && errno != 0)
        return false;
    *ret_pc = (uintptr_t)value;
    return true;
}

bool step_pass_trap(pid_t pid)
{
    (void)pid; /* int3 stops behind itself */
    return true;
}

bool step_at_syscall(pid_t pid, uintptr_t pc)
{
    long word;

    errno = 0;
    word = ptrace(PTRACE_PEEKTEXT, pid, (void *)pc, NULL);
    return errno == 0 && (word & 0xffff) == 0x050f;
}

/* Length of the repeated string instruction that begins with these bytes; 0 if it is none. */
static unsigned repeat_length(uint64_t bytes)
{
    unsigned at = 0;
    uint8_t byte = (uint8_t)bytes;

    if (byte != 0xf3 && byte != 0xf2)
        return 0;
    at++;
    byte = (uint8_t)(bytes >> (8 * at));
    if ((byte & 0xf0) == 0x40) /* REX: quadwords */
        byte = (uint8_t)(bytes >> (8 * ++at));
    /* movs and stos only: compares may end before their count is used up. */
    return byte == 0xa4 || byte == 0xa5 || byte == 0xaa || byte == 0xab ? at + 1 : 0;
}

int step_skip_repeats(pid_t pid, uintptr_t pc, int *ret_status)
{
    struct user_regs_struct regs;
    uintptr_t next;
    long text;
    long text_next;
    bool arrived;

    errno = 0;
    text = ptrace(PTRACE_PEEKTEXT, pid, (void *)pc, NULL);
    if (errno != 0 || repeat_length((uint64_t)text) == 0)
        return 0;
    next = pc + repeat_length((uint64_t)text);
    if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) != 0 || regs.rcx <= 64)
        return 0;
    text_next = ptrace(PTRACE_PEEKTEXT, pid, (void *)next, NULL);
    if (errno != 0)
        return 0;
    /* Fewer iterations, a trap behind the instruction, and then back to it for the last ones. */
    regs.rcx -= STEP_REP_EDGE;
    if (ptrace(PTRACE_SETREGS, pid, NULL, &regs) != 0 ||
        ptrace(PTRACE_POKETEXT, pid, (void *)next, (void *)((text_next & ~0xffL) | 0xcc)) != 0 ||
        ptrace(PTRACE_CONT, pid, NULL, NULL) != 0 || step_wait(pid, ret_status) != pid)
        return -1;
    if (!WIFSTOPPED(*ret_status) || ptrace(PTRACE_GETREGS, pid, NULL, &regs) != 0)
        return -1;
    arrived = WSTOPSIG(*ret_status) == SIGTRAP && regs.rip == next + 1;
    regs.rcx += STEP_REP_EDGE; /* also if a signal came first: the rest is stepped then */
    if (arrived)
        regs.rip = pc;
    if (ptrace(PTRACE_POKETEXT, pid, (void *)next, (void *)text_next) != 0 ||
        ptrace(PTRACE_SETREGS, pid, NULL, &regs) != 0)
        return -1;
    return arrived ? 1 : -1;
}

static bool set_debug_register(pid_t pid, size_t index, uintptr_t value)
{
    size_t offset = offsetof(struct user, u_debugreg) + index * sizeof(uintptr_t);

    return ptrace(PTRACE_POKEUSER, pid, (void *)offset, (void *)value) == 0;
}

/* Debug registers, not a trap in the text: other threads of the child run the same text. */
int step_run_to(pid_t pid, uintptr_t pc, uint64_t visit, uintptr_t other, int *ret_status)
{
    const uintptr_t enable_0_and_1 = 0x5;
    uintptr_t at = 0;
    uint64_t visits = 0;
    int sig = 0;

    if (!set_debug_register(pid, 0, pc) || !set_debug_register(pid, 1, other) ||
        !set_debug_register(pid, 7, enable_0_and_1)) {
        set_debug_register(pid, 7, 0);
        return 0;
    }
    /* Going on from a breakpoint does not hit it again: the kernel sets the resume flag. */
    while (visits < visit && at != other) {
        if (ptrace(PTRACE_CONT, pid, NULL, (void *)(intptr_t)sig) != 0 ||
            step_wait(pid, ret_status) != pid || !WIFSTOPPED(*ret_status))
            return -1;
        sig = WSTOPSIG(*ret_status);
        if (sig == SIGTRAP) {
            if (!step_get_pc(pid, &at) || (at != pc && at != other))
                return -1;
            visits++;
        }
        if (sig == SIGTRAP || step_is_stop_signal(sig))
            sig = 0;
    }
    return set_debug_register(pid, 7, 0) ? 1 : -1;
}

#elif defined(__aarch64__)

__asm__(".text\n"
        ".globl step_call_marked, step_mark_begin, step_mark_end\n"
        ".hidden step_call_marked, step_mark_begin, step_mark_end\n"
        ".type step_call_marked, %function\n"
        "step_call_marked:\n"
        "    stp x29, x30, [sp, #-16]!\n"
        "    mov x29, sp\n"
        "    mov x9, x0\n"
        "    mov x0, x1\n"
        "    brk #0\n"
        "step_mark_begin:\n"
        "    blr x9\n"
        "step_mark_end:\n"
        "    ldp x29, x30, [sp], #16\n"
        "    ret\n"
        ".size step_call_marked, . - step_call_marked\n");

bool step_machine_supported(void)
{
    return true;
}

static bool transfer_registers(int request, pid_t pid, struct user_regs_struct *regs)
{
    struct iovec vector = {regs, sizeof *regs};

    return ptrace(request, pid, (void *)(uintptr_t)NT_PRSTATUS, &vector) == 0;
}

bool step_get_pc(pid_t pid, uintptr_t *ret_pc)
{
    struct user_regs_struct regs;

    if (!transfer_registers(PTRACE_GETREGSET, pid, &regs))
        return false;
    *ret_pc = (uintptr_t)regs.pc;
    return true;
}

bool step_pass_trap(pid_t pid)
{
    struct user_regs_struct regs;

    if (!transfer_registers(PTRACE_GETREGSET, pid, &regs))
        return false;
    regs.pc += 4; /* brk stops at itself */
    return transfer_registers(PTRACE_SETREGSET, pid, &regs);
}

bool step_at_syscall(pid_t pid, uintptr_t pc)
{
    long word;

    errno = 0;
    word = ptrace(PTRACE_PEEKTEXT, pid, (void *)(pc & ~(uintptr_t)7), NULL);
    return errno == 0 && (uint32_t)((uint64_t)word >> (8 * (pc & 7))) == 0xd4000001u; /* svc #0 */
}

int step_skip_repeats(pid_t pid, uintptr_t pc, int *ret_status)
{
    (void)pid;
    (void)pc;
    (void)ret_status;
    return 0;
}

int step_run_to(pid_t pid, uintptr_t pc, uint64_t visit, uintptr_t other, int *ret_status)
{
    (void)pid;
    (void)pc;
    (void)visit;
    (void)other;
    (void)ret_status;
    return 0;
}

#else
#error "single-stepping: add this machine, or let step_machine_supported() say false"
#endif
