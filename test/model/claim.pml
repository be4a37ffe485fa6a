/* claim.pml: claim, commit, resolve and slot reuse of a partition's ring.
 *
 * What C it stands for (one 64-byte unit is 1 here, offsets count units):
 *   P         a producer: ring_claim_multi / ring_claim_single, ring_commit, ring_abort (libshmq/ring.h) and, with
 *             -DFREE, the part of ring_refresh_limit (libshmq/cursor.c) that scans the slots
 *   Recover   whoever holds the recovery byte: ring_resolve (libshmq/ring_recover.c), run by a blocked producer or by
 *             shmqd, and slot_clear / slot_assign, run by shmqd.  It may die between its writes; the next holder starts
 *             afresh.  (A death between two of its reads is the same as never having begun.)
 *   Reader    the one gating consumer (without -DFREE); it never dies and checks what it is given
 * A producer dies at every step (S).  A step is one access to shared memory, or several that nobody can tell apart:
 *   - end and at are stored in one step: end counts only between two equal reads of at (END_LATE splits it)
 *   - so the resolver's end and second at are one step as well
 *   - "dead" and the second look at the dead one's words are one step: the words are frozen
 *   - the owner bit and the payload, a record's header and its stamp are one step each: memory of one's own
 *
 * Abstracted: memory order (sequentially consistent; CLEARFIRST stands for the reordering that the release closes), the
 * 20 ms, OFD locks (`alive` is exact; a second holder of the byte exists only with -DNO_BYTE), contents (gown is the owner
 * of each unit: every write asserts it), the consumer's question to shmqd (Recover starts by itself).
 * Without -DFREE `cursor` is the only gate (more gates: attach.pml).
 *
 * Bounds: NP producers (1..3), NCL claims each (NCLX for all but the first), NRE claims of a successor in a reused slot,
 *         CAP units, MAXL units per claim.
 * Modes:  FREE     nobody gates: limit = min(tail, every unstamped at with tail <= at + CAP) + CAP
 *         SINGLE   one producer at a time (NP = 1): tail is stored, not exchanged; its successor loads tail afresh
 *         BATCH    a claim of 2 or more units may be records of 1 unit each (also: a short commit and its padding)
 *         REUSE    shmqd clears the slot of a dead producer 0 and gives it to a new client, once (REUSE_ALL: 1 as well)
 *         GIVEUP   a producer may time out while it waits for room
 * Negative switches (each must fail): see README.md. */
#ifndef NP
#define NP 2
#endif
#ifndef NCL
#define NCL 1
#endif
#ifndef NCLX
#define NCLX NCL
#endif
#ifndef NRE
#define NRE 1
#endif
#ifndef CAP
#define CAP 4
#endif
#ifndef MAXL
#define MAXL 2
#endif
#define NONE 255

/* ---- shared memory ---- */
byte tail;
byte cursor;                       /* the gating consumer's cursor */
byte at[NP], end[NP];              /* slot: at = offset * 4 | 1 claiming | 2 owner, 0 for none; end */
byte st[CAP], hlen[CAP];           /* commit word: offset + 1 is the stamp for offset; header length in units */
bool pad[CAP];                     /* the stamp says padding */
bool alive[NP];                    /* kernel fact */
/* ---- ghosts ---- */
byte gown[CAP];                    /* p + 1: unit belongs to an unfinished (FREE) or unread (gated) claim of p */
byte glen[CAP];                    /* extent of the record that must be found here */
byte gs[NP], gl[NP];               /* the unfinished claim of p: start, units */
byte pend, nfin;                   /* committed and not read; producers that will not move again */
bool resp[NP], used[NP];           /* slot given to a new client; only once */

#define STAMPED(o) (st[(o)%CAP]==(o)+1)
#define OFF(w) ((w)>>2)
#define NAMES(w,t) ((w)!=0 && OFF(w)==(t))
#define OWNER(w) (((w)&2)!=0)
#define S(x) atomic { if :: x :: goto die fi }

/* the claim became p's: nobody else may own a unit of it, i.e. nothing unfinished (or unread) is overwritten */
inline ghost_claim() {
  gi=0; do :: gi<l -> assert(gown[(t+gi)%CAP]==0); gown[(t+gi)%CAP]=p+1; gi++ :: else -> break od;
  gi=0; gs[p]=t; gl[p]=l;
#ifndef FREE
  if :: bt -> do :: gi<l -> glen[(t+gi)%CAP]=1; gi++ :: else -> break od; gi=0 :: else -> glen[t%CAP]=l fi
#endif
}
/* every unit of the claim is still mine: no byte of another's record is written, nobody has padded it */
#define MINE assert(gown[t%CAP]==p+1 && gown[(t+l-1)%CAP]==p+1 && gl[p]!=0 && gs[p]==t)

inline ghost_done(o, n) {          /* the claim is finished; FREE: nobody reads */
  gl[p]=0; gs[p]=0;
#ifdef FREE
  gi=0; do :: gi<n -> gown[((o)+gi)%CAP]=0; gi++ :: else -> break od; gi=0
#else
  pend=pend+(bt -> n : 1)
#endif
}
/* FREE: slot i keeps tail from reaching x (exact: a producer without room waits for its end, and polls nothing) */
#ifdef NO_STAMPTEST
#define GATES_AT(i,x) (at[i]!=0 && OFF(at[i])+CAP<(x) && tail<=OFF(at[i])+CAP)
#elif defined(NO_LAPTEST)
#define GATES_AT(i,x) (at[i]!=0 && OFF(at[i])+CAP<(x) && !STAMPED(OFF(at[i])))
#else
#define GATES_AT(i,x) (at[i]!=0 && OFF(at[i])+CAP<(x) && !STAMPED(OFF(at[i])) && tail<=OFF(at[i])+CAP)
#endif
#if NP==1
#define BLOCKED(x) (GATES_AT(0,x))
#elif NP==2
#define BLOCKED(x) (GATES_AT(0,x) || GATES_AT(1,x))
#else
#define BLOCKED(x) (GATES_AT(0,x) || GATES_AT(1,x) || GATES_AT(2,x))
#endif

proctype P(byte p) {
  byte n, t, l, lim=CAP, gi, m, w; bool bt;
#ifdef SINGLE
start: S( t=tail );                               /* a successor loads tail afresh; from here on it is the only writer */
#ifdef STALE_TAIL
  if :: used[p] -> t=0 :: else fi;                /* negative: goes on from a tail that it got earlier */
#endif
next: atomic { if :: n<NCL :: else -> goto finished fi;
#else
start: next:
  atomic { if :: n<(p==0 -> NCL : NCLX) :: else -> goto finished fi;
#endif
    if :: l=1 :: MAXL>=2 -> l=2 :: MAXL>=3 -> l=3 fi; bt=0;
#ifdef BATCH
    if :: l>=2 -> bt=1 :: skip fi;
#endif
#ifdef SINGLE
    if :: t+l>lim -> goto refresh :: else -> goto name fi };
#else
  };
#endif
again:                                            /* read tail, check the cached limit */
#ifndef SINGLE
  S( t=tail; if :: t+l>lim -> goto refresh :: else -> goto name fi );
#endif
refresh:
#ifndef NO_CLEARWAIT
  assert(at[p]==0);
#endif
#ifndef FREE
  atomic {
    if
    :: cursor+CAP>=t+l -> lim=cursor+CAP; goto name
#ifndef NO_CLEARWAIT
    :: tail!=t && cursor+CAP<t+l -> t=0; goto again
#endif
#ifdef GIVEUP
    :: cursor+CAP<t+l -> goto give_up
#endif
    fi };                                         /* blocks here while there is no room */
#else
#ifdef SLOTS_FIRST
  atomic { lim=NONE-CAP; gi=0; m=0 };             /* negative: slots, then tail */
#else
  S( gi=tail; lim=gi; m=0 );                      /* gi: tail FIRST, then every slot's at, then the stamp that it names */
#endif
#ifndef NO_RULE
slot: S( w=at[m]; if :: w!=0 && OFF(w)<lim :: else -> goto slot_end fi );
  S( if
#ifndef NO_STAMPTEST
     :: STAMPED(OFF(w)) -> skip
#endif
#if !defined(NO_LAPTEST) && !defined(SLOTS_FIRST)
     :: gi>OFF(w)+CAP -> skip
#endif
     :: else -> lim=OFF(w)
     fi );
slot_end: atomic { w=0; m++; if :: m<NP -> goto slot :: else fi };
#endif
#ifdef SLOTS_FIRST
  S( gi=tail; if :: gi<lim -> lim=gi :: else fi );
#endif
  atomic { lim=lim+CAP; m=0; gi=0; 
#ifdef GIVEUP
    if :: t+l<=lim -> goto name :: t+l>lim :: t+l>lim -> goto give_up fi };
#else
    if :: t+l<=lim -> goto name :: t+l>lim fi };
#endif
  atomic { (tail!=t || !BLOCKED(t+l)) -> 
#ifndef SINGLE
    t=0; goto again };                            /* wait; a dead slot is resolved by me, which is Recover */
#else
    goto refresh };
#endif
#endif
name:
#ifdef SINGLE
  S( assert(at[p]==0); end[p]=t+l; at[p]=t*4+3 ); /* owner from the start */
#ifdef TAIL_UNNAMED
  S( at[p]=0 );                                   /* negative: tail is stored before the slot names it */
#endif
  S( tail=t+l; ghost_claim() );                   /* tail before the first byte */
#else
#ifdef END_LATE
  S( at[p]=t*4+1 ); S( end[p]=t+l );              /* negative: at before end */
#else
  S( end[p]=t+l; at[p]=t*4+1 );
#endif
  S( if :: tail==t -> tail=t+l; ghost_claim()
        :: tail!=t -> t=tail; goto lost fi );     /* what was seen instead is what the next round claims */
#ifndef NO_OWNER
  S( MINE; at[p]=t*4+3;                           /* owner, before the first stamp */
     gi=1; do :: gi<l -> st[(t+gi)%CAP]=0; gi++ :: else -> break od; gi=0 );  /* payload leaves no old stamp */
#endif
#endif
#ifdef SINGLE
  S( MINE; gi=1; do :: gi<l -> st[(t+gi)%CAP]=0; gi++ :: else -> break od; gi=0 );
#endif
#ifdef FIRST_STAMP_FIRST
  if :: bt -> S( MINE; hlen[t%CAP]=1; st[t%CAP]=t+1; pad[t%CAP]=0 ) :: else fi;
#endif
  if                                              /* records 2..k, or the padding of a short commit */
  :: bt -> m=l-1;
more: S( MINE; hlen[(t+m)%CAP]=1; st[(t+m)%CAP]=t+m+1; pad[(t+m)%CAP]=0; m--; if :: m>0 -> goto more :: else fi )
  :: else
  fi;
#ifdef CLEARFIRST                                 /* negative: the clear overtakes the stamp (no release) */
  S( at[p]=0 );
  atomic { MINE; assert(!STAMPED(t)); hlen[t%CAP]=(bt -> 1 : l); st[t%CAP]=t+1; pad[t%CAP]=0; ghost_done(t,l) };
#else
#ifndef FIRST_STAMP_FIRST
  S( MINE; hlen[t%CAP]=(bt -> 1 : l) );           /* header of the first record */
#endif
  S( MINE;                                        /* the first record's stamp last: the whole claim appears at once */
#ifndef FIRST_STAMP_FIRST
     assert(!STAMPED(t));
#endif
     st[t%CAP]=t+1; pad[t%CAP]=0; ghost_done(t,l) );
  S( at[p]=0 );
#endif
#ifdef SINGLE
give_up: atomic { n++; t=t+l; l=0; bt=0; goto next };
#else
give_up: atomic { n++; t=0; l=0; bt=0; m=0; goto next };
lost:
#ifdef NO_CLEARWAIT
  goto again;                                     /* negative: names its old t while it waits for room */
#else
  S( at[p]=0;                                     /* before anything else, waits and returns included */
     if :: t+l>lim -> goto refresh :: else -> goto name fi );
#endif
#endif
finished: atomic { nfin++; t=0; lim=0; n=0 };
end_ok: false;
die: atomic { alive[p]=0; nfin++; n=0; t=0; l=0; lim=0; bt=0; gi=0; m=0; w=0 };
end_dead:
#ifdef REUSE
  atomic { resp[p] -> resp[p]=0; nfin--; n=(p==0 -> NCL : NCLX)-NRE };
  goto start                                      /* lim = 0: the successor computes its limit */
#else
  false
#endif
}

/* ---- whoever holds the recovery byte ---- */
#define D(x) atomic { if :: x :: goto r_die fi }  /* its writes: it may die before each */
#define CAND(i) (NAMES(sa[i],t))
#if NP==1
#define ANYNAMES(e) (NAMES(sa[0],e))
#elif NP==2
#define ANYNAMES(e) (NAMES(sa[0],e) || NAMES(sa[1],e))
#else
#define ANYNAMES(e) (NAMES(sa[0],e) || NAMES(sa[1],e) || NAMES(sa[2],e))
#endif
#define ASKED(i) (at[i]!=0 && OFF(at[i])<tail && !STAMPED(OFF(at[i])) && tail<=OFF(at[i])+CAP)
#define NEXT(lbl) i++; if :: i<NP -> goto lbl :: else -> i=0 fi

proctype Recover() {
  byte t, T, i, best, gi, c=NONE; byte sa[NP], se[NP]; byte p; bool bt;
end_idle:
  if
#ifdef FREE
  :: atomic { ASKED(0) -> t=OFF(at[0]); goto resolve }   /* a blocked producer resolves what holds its limit back */
#if NP>=2
  :: atomic { ASKED(1) -> t=OFF(at[1]); goto resolve }
#endif
#if NP==3
  :: atomic { ASKED(2) -> t=OFF(at[2]); goto resolve }
#endif
#else
  :: atomic { cursor<tail && !STAMPED(cursor) -> t=cursor; goto resolve }  /* a reader stands at an unstamped offset */
#endif
#ifdef REUSE
  :: atomic { !alive[0] && !used[0] -> c=0 }
#if NP>=2 && defined(REUSE_ALL)
  :: atomic { !alive[1] && !used[1] -> c=1 }
#endif
#endif
  fi;

#ifdef REUSE
  /* slot_clear: the slot's owner is dead, its words are frozen */
#ifndef REUSE_BLIND
  atomic { if :: at[c]==0 -> goto clear :: else -> t=OFF(at[c]) fi };
  atomic { if :: tail<=t || tail>t+CAP -> t=0; goto clear :: else fi };
  atomic { if :: STAMPED(t) -> t=0; goto clear :: else -> goto resolve fi };  /* resolve first, then look again */
#endif
clear: D( assert(gl[c]==0); at[c]=0 );
  D( alive[c]=1; resp[c]=1; used[c]=1; goto out );   /* slot_assign */
#endif

resolve: /* ring_resolve(t): 1 tail */
#ifdef TAIL_LATE
  skip;
#else
  atomic { T=tail; if :: t>=T || T>t+CAP -> goto done :: else fi };
#endif
r_slot: /* 2 all slots: at, end, at again; what changed meanwhile names nothing */
  atomic { sa[i]=at[i]; if :: OFF(sa[i])<t || OFF(sa[i])>t+CAP -> sa[i]=0 :: else fi;      /* cannot matter */
    if :: sa[i]==0 -> NEXT(r_slot); goto r_slots :: else fi };
  atomic { if :: at[i]==0 || OFF(at[i])!=OFF(sa[i]) -> sa[i]=0 :: else -> if :: CAND(i) -> se[i]=end[i] :: else fi fi;
    NEXT(r_slot) };
r_slots:
#ifdef TAIL_LATE
  atomic { T=tail; if :: t>=T || T>t+CAP -> goto done :: else fi };
#endif
r_live: /* liveness of the candidates, and a second look at the words of the dead: changed, start over */
  atomic {
    if :: !CAND(i) -> skip
       :: CAND(i) && alive[i] -> goto r_wait
#ifndef NO_REREAD
       :: CAND(i) && !alive[i] -> if :: at[i]==0 || OFF(at[i])!=t || end[i]!=se[i] -> goto out :: else -> sa[i]=at[i] fi
#else
       :: CAND(i) && !alive[i] -> skip
#endif
       fi;
    NEXT(r_live) };
  /* the owner's end; without an owner nothing inside is stamped: the smallest end that is a boundary; 3 stamps */
#ifndef NO_OWNER
  atomic { do :: i<NP && CAND(i) && OWNER(sa[i]) -> best=se[i]; i++
              :: i<NP && !(CAND(i) && OWNER(sa[i])) -> i++
              :: else -> i=0; break od;
           if :: best!=0 -> goto r_check :: else fi };
#endif
r_edge:
#ifdef STAMPS_FIRST                               /* negative: the stamp, then who names it now */
  atomic { if :: !(CAND(i) && se[i]<=T && (best==0 || se[i]<best)) -> NEXT(r_edge); goto r_check
              :: else -> if :: T==se[i] || STAMPED(se[i]) -> best=se[i] :: else fi fi };
  atomic { if :: best==0 && (NAMES(at[0],se[i]) || NAMES(at[NP-1],se[i])) -> best=se[i] :: else fi; NEXT(r_edge) };
#else
  atomic {
    if :: CAND(i) && se[i]<=T && (best==0 || se[i]<best) && (T==se[i] || ANYNAMES(se[i]) || STAMPED(se[i])) -> best=se[i]
       :: else fi;
    NEXT(r_edge) };
#endif
r_check:
#ifndef NO_RECHECK
  atomic { if :: STAMPED(t) -> goto done :: else fi };
#endif
#ifndef NO_LAPCHECK
  atomic { if :: tail>t+CAP -> goto done :: else fi };
#endif
  atomic { assert(best!=0);                       /* no end: shmqd quarantines.  Never without scribbling */
    T=0; i=0; do :: i<NP -> sa[i]=0; se[i]=0; i++ :: else -> break od; i=t+1 };
#ifndef NO_ZERO
r_zero: D( if :: i<best -> assert(gown[i%CAP]==gown[t%CAP]); st[i%CAP]=0; i++; goto r_zero :: else -> i=0 fi );
#endif
  D( hlen[t%CAP]=best-t );
  D( /* the padding covers exactly the unfinished claim of a dead producer, and nothing inside is found by a seek */
     do :: p<NP && !(gl[p]>0 && gs[p]==t) -> p++ :: else -> break od;
     assert(p<NP); assert(!alive[p] && gs[p]+gl[p]==best && gown[t%CAP]==p+1 && !STAMPED(t));
     i=t+1; do :: i<best -> assert(!STAMPED(i)); glen[i%CAP]=0; i++ :: else -> break od; i=0;
     ghost_done(t, best-t);
#ifndef FREE
     pend--; glen[t%CAP]=best-t;
#endif
     p=0; st[t%CAP]=t+1; pad[t%CAP]=1 );
  goto done;
r_wait: /* one lives: nothing to do before it stamps, dies or moves on.  It names t, so it must not be waiting itself */
  atomic { (STAMPED(t) || !alive[i] || !NAMES(at[i],t) || tail>t+CAP) -> goto out };
done: assert(c!=NONE || tail<=t || tail>t+CAP || STAMPED(t));
out: r_die:
  atomic { t=0; T=0; i=0; best=0; gi=0; c=NONE; p=0; do :: i<NP -> sa[i]=0; se[i]=0; i++ :: else -> break od; i=0;
    goto end_idle }
}

proctype Reader() {
  byte gi, c;
end_r: do                                         /* at the end of the run: all read (Mon) */
  :: atomic { cursor<tail && STAMPED(cursor) ->
       assert(hlen[cursor%CAP]==glen[cursor%CAP]);
       if :: !pad[cursor%CAP] -> assert(pend>0); pend-- :: else fi;
       do :: gi<glen[cursor%CAP] -> assert(gown[(cursor+gi)%CAP]!=0); gown[(cursor+gi)%CAP]=0; gi++ :: else -> break od;
       gi=0; c=glen[cursor%CAP]; glen[cursor%CAP]=0; cursor=cursor+c; c=0 }
  od
}
/* nothing can move any more: no producer is stuck (Spin: invalid end state), all that was claimed is read */
proctype Mon() {
end_m: atomic { timeout -> assert(nfin==NP);
#ifndef FREE
  assert(cursor==tail && pend==0)
#endif
  }
}

init { atomic {
  byte k; k=0; do :: k<NP -> alive[k]=1; k++ :: else -> k=0; break od;
  run P(0);
#if NP>=2
  run P(1);
#endif
#if NP==3
  run P(2);
#endif
#ifndef FREE
  run Reader();
#endif
  run Recover();
#ifdef NO_BYTE
  run Recover();
#endif
  run Mon()
  } }
