/* wait.pml: sleep and wake by attention bits and sequence words, with explicit x86-TSO store buffers.
 *
 * What C it stands for:
 *   Pub       ring_stamp (or cursor_commit) and then wait_wake, wait_wake_slow (libshmq/wait.h, wait.c); it may die at
 *             every step.  The death wake is wait_wake_everyone, run by shmqd
 *   Sleeper   wait_prepare, wait_barrier, the re-check, wait_sleep; it may die at every step (sleeper 1, SDIE)
 *   Mem       drains the store buffers at any time
 *
 * Checked: never does a sleeper sleep on while what it waits for stands in memory and nobody will move any more.
 * Abstracted: the bound on every sleep (1 s, 20 ms) is left out on purpose: it covers only what the protocol cannot, a
 * waker dead between stamp and wake, and here the death wake does (NO_DEATH_WAKE).  The sleeper's fetch_or is a buffered
 * "or": weaker than x86's locked one, as on ARM.  DOORBELL is one more bit like these; CLOSED is a hint.
 *
 * Modes: default   membarrier: the sleeper drains every process, one after another; the publisher has no fence
 *        FENCE     fence mode: both have one
 *        MIXED     publisher 0 stamps DATA for sleeper 0, publisher 1 commits ROOM for sleeper 1: one attention word
 *        SDIE      sleeper 1 may die and leave its bit
 * Negative switches: NO_BARRIER (sleeper), NO_PFENCE (publisher, with FENCE), BUMP_FIRST, NO_BUMP, SEQ_LATE,
 *        NO_DEATH_WAKE, UNREGISTERED, CLEAR_ALL (with MIXED). */
#define NP 2
#ifndef NS
#define NS 2
#endif
#define DATA 1
#define ROOM 2
#ifdef MIXED
#define NREC 2
#define KIND(p) ((p)==0 -> 0 : 1)
#else
#define NREC 3
#define KIND(p) 0
#endif
#define BIT(k) ((k)==0 -> DATA : ROOM)

bool com[6];                       /* memory: record r of kind k is com[3 * k + r] */
byte attention, seq[2];            /* W */
byte pbuf[NP]; bool pfull[NP];     /* store buffer of a publisher: one commit store */
byte sbit[NS];                     /* store buffer of a sleeper: the bit */
bool asleep[NS]; byte pos[NS];

#define DRAINP(p) if :: pfull[p] -> com[pbuf[p]]=1; pfull[p]=0; pbuf[p]=0 :: else fi
#define DRAINS(s) if :: sbit[s]!=0 -> attention=attention|sbit[s]; sbit[s]=0 :: else fi
#define WAKE(x) k=0; do :: k<NS -> if :: KIND(k)==(x) -> asleep[k]=0 :: else fi; k++ :: else -> break od; k=0
#define S(x) atomic { if :: x :: goto die fi }

proctype Pub(byte p) {
  byte n, a, k, rec;
#ifdef MIXED
  rec=3*KIND(p);
#else
  rec=p;
#endif
  do
  :: S( (!pfull[p]); pbuf[p]=rec; pfull[p]=1 );            /* the stamp, release: into the buffer */
#if defined(FENCE) && !defined(NO_PFENCE)
     S( (!pfull[p]) );
#endif
     S( a=attention&BIT(KIND(p)) );                        /* relaxed */
     if
     :: a!=0 ->
#ifdef BUMP_FIRST
        S( (!pfull[p]); seq[KIND(p)]++ );
        S( attention=attention&(255-a) );
#else
#ifdef CLEAR_ALL
        S( (!pfull[p]); attention=0 );                     /* negative: the other's bit is lost */
#else
        S( (!pfull[p]); attention=attention&(255-a) );     /* fetch_and: clear FIRST */
#endif
#ifndef NO_BUMP
        S( seq[KIND(p)]++ );
#endif
#endif
        S( WAKE(KIND(p)) )
     :: else
     fi;
#ifdef MIXED
     atomic { a=0; n++; if :: n<NREC -> rec++ :: else -> break fi }
#else
     atomic { a=0; n++; if :: p==0 && n==1 -> rec=NP :: else -> break fi }
#endif
  od;
end_p: false;
die: atomic { a=0; n=0; rec=0 };
  (!pfull[p]);                                             /* what it had stored still drains */
#ifndef NO_DEATH_WAKE
  atomic { seq[0]++; WAKE(0) }; atomic { seq[1]++; WAKE(1) };
#endif
end_d: false
}

#define READY com[3*KIND(s)+pos[s]]
#ifdef SDIE
#define SD if :: skip :: s==1 -> goto sdie fi
#else
#define SD skip
#endif
proctype Sleeper(byte s) {
  byte e, k;
  do
  :: pos[s]==NREC -> break
#ifdef SDIE
  :: atomic { s==1 && pos[s]<NREC -> goto sdie }
#endif
  :: pos[s]<NREC && READY -> pos[s]++
  :: pos[s]<NREC && !READY ->
#ifndef SEQ_LATE
     e=seq[KIND(s)];                                       /* wait_prepare: seq, acquire; then the bit */
     SD;
#endif
     sbit[s]=BIT(KIND(s));
     SD;
#if !defined(NO_BARRIER) && !defined(FENCE)
     atomic { DRAINS(s) };                                 /* wait_barrier: one processor after another */
     atomic { DRAINP(0) };
#ifndef UNREGISTERED
     atomic { DRAINP(1) };
#endif
#endif
#if !defined(NO_BARRIER) && defined(FENCE)
     (sbit[s]==0);
#endif
     SD;
     if
     :: READY
     :: else ->
#ifdef SEQ_LATE
        e=seq[KIND(s)];                                    /* negative: read after the re-check */
#endif
        atomic { (sbit[s]==0);                             /* futex_wait: a system call, compared under the bucket's lock */
                 if :: seq[KIND(s)]==e -> asleep[s]=1 :: else fi };
end_sl: if :: (!asleep[s])
#ifdef SDIE
           :: s==1 -> asleep[s]=0; goto sdie
#endif
        fi
     fi;
     SD;
     e=0
  od;
  goto sdone;
sdie: atomic { e=0; k=0; pos[s]=NREC };
sdone: skip
}

proctype Mem() {
end_m: do
  :: atomic { pfull[0] -> DRAINP(0) }
  :: atomic { pfull[1] -> DRAINP(1) }
  :: atomic { sbit[0]!=0 -> DRAINS(0) }
#if NS==2
  :: atomic { sbit[1]!=0 -> DRAINS(1) }
#endif
  od
}
proctype Mon() { byte s;
end_mo: atomic { timeout -> do :: s<NS -> assert(!(asleep[s] && READY)); s++ :: else -> break od }
}
init { atomic { run Pub(0); run Pub(1); run Sleeper(0);
#if NS==2
  run Sleeper(1);
#endif
  run Mem(); run Mon() } }
