//! What a charge is for, and whether it backs guest RAM.

macro_rules! named_u8_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: [Self; [$($value),*].len()] = [$(Self::$variant),*];

            /// The name used in recordings, reports and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value with this number, if there is one.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }

            /// The value with this name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

named_u8_enum! {
    /// The kind of memory that was charged.
    pub enum Kind {
        /// Private anonymous pages: heap, stacks, guest RAM without a memfd.
        Anon = 0 => "anon",
        /// Page cache of files.
        File = 1 => "file",
        /// tmpfs, memfd and shared anonymous pages.
        Shmem = 2 => "shmem",
        /// Kernel objects, in bytes rather than pages.
        Slab = 3 => "slab",
        /// Page tables of the process.
        Pagetable = 4 => "pagetable",
        /// KVM's second-level (and IOMMU) page tables.
        SecondaryPagetable = 5 => "secondary_pagetable",
        /// Kernel stacks of threads.
        KernelStack = 6 => "kernel_stack",
        /// vmalloc areas.
        Vmalloc = 7 => "vmalloc",
        /// Per-CPU objects.
        Percpu = 8 => "percpu",
        /// Socket buffers.
        Sock = 9 => "sock",
        /// Huge pages of hugetlbfs, where the kernel charges them to memory.
        Hugetlb = 10 => "hugetlb",
        /// Kernel memory that the backend cannot tell apart further.
        Kmem = 11 => "kmem",
    }
}

named_u8_enum! {
    /// What a charged page backs.
    pub enum Region {
        /// Charged, but not (or, on the tracepoint backend, not known to be) placed yet.
        Unplaced = 0 => "unplaced",
        /// Backs guest RAM.
        Guest = 1 => "guest",
        /// Everything else.
        Overhead = 2 => "overhead",
    }
}

impl Kind {
    /// The kinds of kernel memory that have a name of their own: what v2's `kernel` (5.18+) holds and memory.stat also
    /// shows by itself. The rest of it is [`Kind::Kmem`].
    pub const KERNEL_PARTS: [Self; 6] = [
        Self::Slab,
        Self::Pagetable,
        Self::SecondaryPagetable,
        Self::KernelStack,
        Self::Vmalloc,
        Self::Percpu,
    ];

    /// Whether the page ledger follows it: what is charged page by page. Objects, per-CPU memory and socket buffers are
    /// charged in bytes or numbers of pages, and vmalloc areas are known as such only once their pages are charged as
    /// [`Kind::Kmem`], where they stay.
    #[must_use]
    pub const fn is_followed(self) -> bool {
        match self {
            Self::Anon
            | Self::File
            | Self::Shmem
            | Self::Hugetlb
            | Self::Kmem
            | Self::Pagetable
            | Self::SecondaryPagetable
            | Self::KernelStack => true,
            Self::Slab | Self::Vmalloc | Self::Percpu | Self::Sock => false,
        }
    }

    /// Whether this is kernel memory, named or not.
    #[must_use]
    pub fn is_kernel(self) -> bool {
        self == Self::Kmem || Self::KERNEL_PARTS.contains(&self)
    }
}
