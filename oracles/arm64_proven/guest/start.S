/* Entry at EL2 with its MMU off; the EL1&0 regime is what the cases translate with. */
        .section .text.start
        .globl  start
start:  ldr     x0, =stack_end
        mov     sp, x0
        ldr     x0, =el2_vectors
        msr     vbar_el2, x0
        isb
        bl      guest_main
1:      b       1b

/* u64 run_below(elr, spsr, x0, x1): leave to EL1 or EL0; comes back with ESR_EL2 at the next exception to EL2. */
        .globl  run_below
run_below:
        stp     x19, x20, [sp, #-96]!
        stp     x21, x22, [sp, #16]
        stp     x23, x24, [sp, #32]
        stp     x25, x26, [sp, #48]
        stp     x27, x28, [sp, #64]
        stp     x29, x30, [sp, #80]
        msr     elr_el2, x0
        msr     spsr_el2, x1
        mov     x0, x2
        mov     x1, x3
        mov     x2, #0
        isb
        eret
from_below:
        ldr     x0, =loaded
        str     x2, [x0]
        ldp     x21, x22, [sp, #16]
        ldp     x23, x24, [sp, #32]
        ldp     x25, x26, [sp, #48]
        ldp     x27, x28, [sp, #64]
        ldp     x29, x30, [sp, #80]
        ldp     x19, x20, [sp], #96
        mrs     x0, esr_el2
        ret
/* An exception of the guest itself: an AT that met an external abort, say. It is told, and the instruction skipped. */
from_here:
        stp     x0, x1, [sp, #-16]!
        ldr     x1, =own_exception
        mrs     x0, esr_el2
        str     x0, [x1]
        mrs     x0, elr_el2
        add     x0, x0, #4
        msr     elr_el2, x0
        ldp     x0, x1, [sp], #16
        eret
        .balign 2048
el2_vectors:
        .rept   8
        .balign 128
        b       from_here
        .endr
        .rept   8
        .balign 128
        b       from_below
        .endr

/* Copied to the harness page: one access each, then SVC; X0 is the address, X1 the value, X2 what was read. */
        .globl  stubs, stubs_end
        .balign 4096
stubs:
        .macro  stub code:vararg
        .balign 16
        \code
        svc     #0
        .endm
        stub    ldr x2, [x0]
        stub    str x1, [x0]
        stub    ldtr x2, [x0]
        stub    sttr x1, [x0]
        stub    swp x1, x2, [x0]
        stub    ldxr x2, [x0]
        .balign 2048
        .rept   16                      /* EL1's vectors: everything goes on to EL2 */
        .balign 128
        hvc     #1
        .endr
        .balign 4096
stubs_end:
        .bss
        .balign 16
        .globl  own_exception, loaded
own_exception: .skip 8
loaded: .skip   8
        .balign 4096
        .skip   16384
stack_end:
