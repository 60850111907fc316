/* Entry in flat 32-bit mode, by multiboot (QEMU -kernel) or by floppy.S (Bochs): long mode with 4 or 5 levels.
 *
 * Every root table's slot 0 is the harness: VA 0 to 1 GiB is the identity for the supervisor, and 1 GiB to
 * 1 GiB + 2 MiB shows physical address 0 to ring 3. All other slots belong to the cases.
 */
#include "map.h"
        .section .multiboot, "ax"
        .long   0x1BADB002, 3, -(0x1BADB002 + 3)
        .balign 16
        .code32
        .globl  entry32
entry32:
        cli
        cld
        mov     $stack_end, %esp
        mov     %eax, %ebp              /* 0x2BADB002 from multiboot */
        xor     %eax, %eax
        mov     $ROOTS, %edi
        mov     $((HARNESS_END - ROOTS) / 4), %ecx
        rep stosl
        mov     $0x83, %eax             /* P RW PS, supervisor */
        mov     $IDENTITY_PD, %edi
1:      mov     %eax, (%edi)
        add     $8, %edi
        add     $0x200000, %eax
        cmp     $(IDENTITY_PD + 4096), %edi
        jb      1b
        movl    $0x87, USER_PD          /* P RW US PS */
        movl    $(IDENTITY_PD + 7), HARNESS_PDPT
        movl    $(USER_PD + 7), HARNESS_PDPT + 8
        movl    $(HARNESS_PDPT + 7), HARNESS_PML4
        mov     $(HARNESS_PDPT + 7), %eax
        mov     $0x620, %edx            /* PAE OSFXSR OSXMMEXCPT */
        cmp     $0x2BADB002, %ebp
        jne     2f                      /* no control page yet: 4 levels */
        cmpl    $0, CONTROL + CONTROL_LA57
        je      2f
        mov     $(HARNESS_PML4 + 7), %eax
        or      $0x1000, %edx           /* LA57 */
2:      mov     $ROOTS, %edi
3:      mov     %eax, (%edi)
        add     $4096, %edi
        cmp     $ROOTS_END, %edi
        jb      3b
        mov     %edx, %cr4
        mov     $ROOTS, %eax
        mov     %eax, %cr3
        mov     $0xC0000080, %ecx
        rdmsr
        or      $0x100, %eax            /* EFER.LME */
        wrmsr
        mov     $0x80000033, %eax       /* PG NE ET MP PE */
        mov     %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $0x08, $1f
        .code64
1:      mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        mov     $stack_end, %rsp
        xor     %edi, %edi
        cmp     $0x2BADB002, %ebp
        setne   %dil
        call    guest_main
1:      hlt
        jmp     1b

        .data
        .balign 16
        .globl  gdt
gdt:    .quad   0
        .quad   0x00209a0000000000      /* 08 supervisor code */
        .quad   0x0000920000000000      /* 10 supervisor data */
        .quad   0x0000f20000000000      /* 18 user data */
        .quad   0x0020fa0000000000      /* 20 user code */
        .quad   0, 0                    /* 28 TSS */
        .quad   0, 0                    /* 38 LDT */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .quad   gdt

/* void access(kind, cpl, va, rflags): make one access; what became of it is in `seen`. */
        .text
        .globl  access
access:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, resume
        mov     stubs(,%rdi,8), %rbx
        mov     $4, %r8d                /* LDT selector 0; RPL as CPL */
        or      %esi, %r8d
        test    %esi, %esi
        jnz     1f
        push    %rcx
        popfq
        jmp     *%rbx
1:      add     $USER_VIEW, %rbx
        push    $0x1b
        push    $0
        push    %rcx
        push    $0x23
        push    %rbx
        iretq

/* One stub a kind: RDX is the address. `int 0x21` says it went through; a fetched cell says `int 0x20`. */
stub_load:
        mov     (%rdx), %rax
        int     $0x21
stub_store:
        movb    $MARK, (%rdx)
        int     $0x21
stub_fetch:
        jmp     *%rdx
stub_rmw:
        lock xorb $(MARK ^ CELL_FIRST), (%rdx)
        int     $0x21
stub_descriptor:
        mov     %r8d, %fs
        int     $0x21
        .section .rodata
        .balign 8
stubs:  .quad   stub_load, stub_store, stub_fetch, stub_rmw, stub_descriptor

        .text
        .macro  gate vector
        .balign 16
gate\vector:
        .if (\vector != 8) && (\vector < 10 || \vector > 14) && (\vector != 17) && (\vector != 21) && (\vector != 29) && (\vector != 30)
        push    $0                      /* no error code of its own */
        .endif
        push    $\vector
        jmp     finish
        .endm
        .globl  gates
        .balign 16
gates:
        .altmacro
        .set    n, 0
        .rept   34
        gate    %n
        .set    n, n + 1
        .endr
        .noaltmacro
finish:
        mov     %rax, seen + 24
        mov     %cr2, %rax
        mov     %rax, seen + 16
        pop     seen
        pop     seen + 8
        mov     resume, %rsp
        push    $2
        popfq
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .bss
        .balign 4096
        .skip   16384
stack_end:
        .skip   8192
        .globl  entry_stack_end
entry_stack_end:
        .globl  seen
seen:   .skip   32
resume: .skip   8
