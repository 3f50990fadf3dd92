# The guest: a firmware of its own that touches RAM and writes to its disk, as it is told on its serial line.
#
# At first, and whenever it is through with a line, it tells "gate" on COM1 and waits there for the next:
#   tN,P    touches each page up to N MiB of guest RAM, pausing P ms after each MiB; tells "t MiB" after each
#   wN,D    writes N MiB to the first virtio-blk device in requests of 1 MiB, D at a time; tells "w MiB" after each
# Without a disk, `w` tells "no disk" and halts.
#
# It stands in the last 64 KiB below 4 GiB, where the CPU starts, and runs there, in 32-bit protected mode without paging,
# interrupts off, on the first vCPU. Nothing runs before it: a BIOS takes interrupts in real mode, which nested SVM on an
# emulated CPU now and then does not survive. Its addresses are those there, whatever the program that carries it is
# linked at: every one is .LBASE plus a difference of labels. Specifications: AMD64 Architecture Programmer's Manual,
# volume 2, 14.1 (processor state at reset); virtio 1.0 section 4.1.4.8 (legacy interface).

    .section .rodata.headroom_payload,"a",@progbits
    .balign 16
    .globl headroom_payload_start
headroom_payload_start:
.Lhp_start:
    .set .LBASE, 0xffff0000
    .set .LSTACK, 0x80000
    # Memory that is used besides: all below 4 MiB, where touching begins.
    .set .LQUEUE, 0x200000
    .set .LHEADERS, 0x210000
    .set .LSTATUS, 0x220000
    .set .LDATA, 0x300000
    # Variables.
    .set .LTOUCHED, 0x230000
    .set .LWRITTEN, 0x230004
    .set .LPORT, 0x230008
    .set .LSIZE, 0x23000c
    .set .LUSED, 0x230010
    .set .LSEEN, 0x230014
    .set .LISSUED, 0x230018
    .set .LGOAL, 0x23001c
    .set .LNUMBER, 0x230020
    .set .LLINE, 0x231000
    # I/O ports for the disk, which no BIOS gave any.
    .set .LDISK_PORTS, 0xc000

    .code16
# The CPU starts at the end of the 64 KiB, with %cs at their start, and jumps here.
.Lhp_reset:
    cli
    cld
    lgdtl %cs:(.Lhp_gdt_pointer - .Lhp_start)
    movl $0x11, %eax                    # protected mode, caches on
    movl %eax, %cr0
    ljmpl $8, $(.LBASE + (.Lhp_entry - .Lhp_start))

    .balign 8
# Flat code at 8, flat data at 16.
.Lhp_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
.Lhp_gdt_pointer:
    .word .Lhp_gdt_pointer - .Lhp_gdt - 1
    .long .LBASE + (.Lhp_gdt - .Lhp_start)

    .code32
.Lhp_entry:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $.LSTACK, %esp
    movl $4, .LTOUCHED
    movl $0, .LWRITTEN
    movl $0, .LPORT
    movl $0, .LISSUED
    call .Lhp_serial_init

# The next line; %esi is kept at it throughout.
.Lhp_next:
    movl $(.LBASE + (.Lhp_say_gate - .Lhp_start)), %ebx
    call .Lhp_say
    movl $.LLINE, %edi
.Lhp_hear:
    call .Lhp_get
    movb %al, (%edi)
    incl %edi
    cmpb $'\n', %al
    jne .Lhp_hear
    movl $.LLINE, %esi
    lodsb
    cmpb $'t', %al
    je .Lhp_touch
    cmpb $'w', %al
    je .Lhp_write
    jmp .Lhp_next

.Lhp_halt:
    hlt
    jmp .Lhp_halt

.Lhp_touch:
    call .Lhp_read_number
    movl %eax, .LGOAL
    call .Lhp_read_number
    movl %eax, %ebp
.Lhp_touch_mib:
    movl .LTOUCHED, %edi
    cmpl .LGOAL, %edi
    jae .Lhp_next
    shll $20, %edi
    movl $256, %ecx
.Lhp_touch_page:
    movb $1, (%edi)
    addl $4096, %edi
    decl %ecx
    jnz .Lhp_touch_page
    incl .LTOUCHED
    movl .LTOUCHED, %eax
    movb $'t', %bl
    call .Lhp_progress
    movl %ebp, %eax
    call .Lhp_delay
    jmp .Lhp_touch_mib

.Lhp_write:
    call .Lhp_read_number
    addl .LISSUED, %eax
    movl %eax, .LGOAL
    call .Lhp_read_number
    movl %eax, %ebp                     # requests at a time
    cmpl $0, .LPORT
    jne .Lhp_write_ready
    call .Lhp_find_disk
    call .Lhp_start_disk
.Lhp_write_ready:
    xorl %ecx, %ecx
.Lhp_write_first:
    cmpl %ebp, %ecx
    jae .Lhp_write_poll
    movl .LISSUED, %eax
    cmpl .LGOAL, %eax
    jae .Lhp_write_poll
    call .Lhp_submit
    incl %ecx
    jmp .Lhp_write_first
# Each completion tells its descriptor, hence the slot that the next request goes into.
.Lhp_write_poll:
    movl .LWRITTEN, %eax
    cmpl .LGOAL, %eax
    jae .Lhp_next
    movl .LUSED, %edi
    movzwl 2(%edi), %eax
    cmpw .LSEEN, %ax
    je .Lhp_write_idle
    movl .LSIZE, %ecx
    decl %ecx
    movzwl .LSEEN, %eax
    andl %ecx, %eax
    movl 4(%edi,%eax,8), %eax
    xorl %edx, %edx
    movl $3, %ecx
    divl %ecx
    movl %eax, %ecx
    incw .LSEEN
    incl .LWRITTEN
    movl .LWRITTEN, %eax
    movb $'w', %bl
    call .Lhp_progress
    movl .LISSUED, %eax
    cmpl .LGOAL, %eax
    jae .Lhp_write_poll
    call .Lhp_submit
    jmp .Lhp_write_poll
.Lhp_write_idle:
    movl $1, %eax
    call .Lhp_delay
    jmp .Lhp_write_poll

# Sends the next MiB in slot %ecx.
.Lhp_submit:
    pushal
    # Header: type, priority, sector.
    movl %ecx, %edi
    shll $4, %edi
    addl $.LHEADERS, %edi
    movl $1, (%edi)
    movl $0, 4(%edi)
    movl .LISSUED, %eax
    movl %eax, %edx
    shll $11, %eax
    shrl $21, %edx
    movl %eax, 8(%edi)
    movl %edx, 12(%edi)
    # Three descriptors: header, data, status.
    imull $3, %ecx, %eax
    movl %eax, %edx
    shll $4, %eax
    addl $.LQUEUE, %eax
    movl %edi, (%eax)
    movl $0, 4(%eax)
    movl $16, 8(%eax)
    movw $1, 12(%eax)
    leal 1(%edx), %ebx
    movw %bx, 14(%eax)
    movl $.LDATA, 16(%eax)
    movl $0, 20(%eax)
    movl $0x100000, 24(%eax)
    movw $1, 28(%eax)
    incl %ebx
    movw %bx, 30(%eax)
    leal .LSTATUS(%ecx), %ebx
    movl %ebx, 32(%eax)
    movl $0, 36(%eax)
    movl $1, 40(%eax)
    movw $2, 44(%eax)
    movw $0, 46(%eax)
    # Available ring: behind the descriptors.
    movl .LSIZE, %edi
    movl %edi, %ecx
    shll $4, %edi
    addl $.LQUEUE, %edi
    decl %ecx
    movzwl 2(%edi), %eax
    andl %eax, %ecx
    movw %dx, 4(%edi,%ecx,2)
    incl %eax
    movw %ax, 2(%edi)
    incl .LISSUED
    # Notify queue 0.
    movl .LPORT, %edx
    addl $16, %edx
    xorl %eax, %eax
    outw %ax, %dx
    popal
    ret

# Finds the first transitional virtio-blk device on PCI bus 0 and its I/O ports.
.Lhp_find_disk:
    movl $0x80000000, %ebx
.Lhp_find_slot:
    movl %ebx, %eax
    call .Lhp_pci_read
    cmpl $0x10011af4, %eax
    je .Lhp_disk_found
    addl $0x800, %ebx
    cmpl $0x80010000, %ebx
    jb .Lhp_find_slot
    movl $(.LBASE + (.Lhp_say_no_disk - .Lhp_start)), %ebx
    call .Lhp_say
    jmp .Lhp_halt
.Lhp_disk_found:
    leal 0x10(%ebx), %eax
    call .Lhp_pci_read
    movl $.LDISK_PORTS, %eax
    movl %eax, .LPORT
    outl %eax, %dx
    leal 4(%ebx), %eax
    call .Lhp_pci_read
    orl $5, %eax                        # I/O space, bus master
    outl %eax, %dx
    ret

# Reads the configuration register at %eax into %eax; %dx is its data port then.
.Lhp_pci_read:
    movw $0xcf8, %dx
    outl %eax, %dx
    movw $0xcfc, %dx
    inl %dx, %eax
    ret

# Resets the device, takes no features, gives it queue 0.
.Lhp_start_disk:
    movl $.LQUEUE, %edi
    movl $0x4000, %ecx                  # 64 KiB
    xorl %eax, %eax
    rep stosl
    movl .LPORT, %edx
    addl $18, %edx
    outb %al, %dx
    movb $1, %al
    outb %al, %dx
    movb $3, %al
    outb %al, %dx
    movl .LPORT, %edx
    addl $4, %edx
    xorl %eax, %eax
    outl %eax, %dx
    addl $10, %edx
    outw %ax, %dx
    subl $2, %edx
    inw %dx, %ax
    movzwl %ax, %eax
    movl %eax, .LSIZE
    # The used ring begins on the page after the available ring: 16 n + 6 + 2 n bytes, rounded up.
    imull $18, %eax, %ecx
    addl $(6 + 4095), %ecx
    andl $~4095, %ecx
    addl $.LQUEUE, %ecx
    movl %ecx, .LUSED
    movl $0, .LSEEN
    # No more at a time than fit.
    xorl %edx, %edx
    movl $3, %ecx
    divl %ecx
    cmpl %eax, %ebp
    jbe .Lhp_depth
    movl %eax, %ebp
.Lhp_depth:
    movl .LPORT, %edx
    addl $8, %edx
    movl $(.LQUEUE >> 12), %eax
    outl %eax, %dx
    addl $10, %edx
    movb $7, %al
    outb %al, %dx
    ret

# Reads a decimal number at %esi into %eax, and a comma behind it.
.Lhp_read_number:
    xorl %eax, %eax
.Lhp_digit:
    movzbl (%esi), %ecx
    subl $'0', %ecx
    cmpl $9, %ecx
    ja .Lhp_number_end
    imull $10, %eax, %eax
    addl %ecx, %eax
    incl %esi
    jmp .Lhp_digit
.Lhp_number_end:
    cmpb $',', (%esi)
    jne .Lhp_number_done
    incl %esi
.Lhp_number_done:
    ret

# Waits %eax milliseconds by channel 2 of the timer.
.Lhp_delay:
    pushal
    movl %eax, %ecx
    jecxz .Lhp_delay_done
.Lhp_delay_ms:
    inb $0x61, %al
    andb $0xfc, %al
    outb %al, $0x61
    movb $0xb0, %al                     # count down once, then stay high
    outb %al, $0x43
    movb $(1193 & 0xff), %al
    outb %al, $0x42
    movb $(1193 >> 8), %al
    outb %al, $0x42
    inb $0x61, %al
    orb $1, %al
    outb %al, $0x61
.Lhp_delay_wait:
    inb $0x61, %al
    testb $0x20, %al
    jz .Lhp_delay_wait
    decl %ecx
    jnz .Lhp_delay_ms
.Lhp_delay_done:
    popal
    ret

.Lhp_serial_init:
    movw $0x3f9, %dx
    xorl %eax, %eax
    outb %al, %dx                       # no interrupts
    movw $0x3fb, %dx
    movb $0x80, %al
    outb %al, %dx
    movw $0x3f8, %dx
    movb $1, %al
    outb %al, %dx                       # 115200 baud
    movw $0x3f9, %dx
    xorl %eax, %eax
    outb %al, %dx
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx                       # 8n1
    ret

# Waits for a byte, in %al.
.Lhp_get:
    movw $0x3fd, %dx
    inb %dx, %al
    testb $1, %al
    jnz .Lhp_got
    movl $1, %eax
    call .Lhp_delay
    jmp .Lhp_get
.Lhp_got:
    movw $0x3f8, %dx
    inb %dx, %al
    ret

# Tells %al.
.Lhp_put:
    pushl %edx
    pushl %eax
    movw $0x3fd, %dx
.Lhp_put_wait:
    inb %dx, %al
    testb $0x20, %al
    jz .Lhp_put_wait
    movw $0x3f8, %dx
    popl %eax
    outb %al, %dx
    popl %edx
    ret

# Tells the text at %ebx.
.Lhp_say:
    movb (%ebx), %al
    testb %al, %al
    jz .Lhp_said
    call .Lhp_put
    incl %ebx
    jmp .Lhp_say
.Lhp_said:
    ret

# Tells the letter %bl and the number %eax.
.Lhp_progress:
    pushal
    movl %eax, %ecx
    movb %bl, %al
    call .Lhp_put
    movb $' ', %al
    call .Lhp_put
    movl %ecx, %eax
    movl $(.LNUMBER + 15), %edi
    movb $0, (%edi)
    decl %edi
    movb $'\n', (%edi)
    movl $10, %ecx
.Lhp_progress_digit:
    xorl %edx, %edx
    divl %ecx
    addb $'0', %dl
    decl %edi
    movb %dl, (%edi)
    testl %eax, %eax
    jnz .Lhp_progress_digit
    movl %edi, %ebx
    call .Lhp_say
    popal
    ret

.Lhp_say_gate:
    .asciz "gate\n"
.Lhp_say_no_disk:
    .asciz "no disk\n"
    .balign 4
.Lhp_end:
    .globl headroom_payload_end
headroom_payload_end:
    .code64
    .text
