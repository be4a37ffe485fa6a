/* resync.pml: where a reader begins that was lapped (drop-old, spill), or that joins in the middle of a record.
 *
 * What C it stands for:
 *   Reader    ring_resynchronise (libshmq/ring.c) with inside_unfinished_claim, then ring_peek / ring_copy and
 *             ring_copy_valid (libshmq/ring.h, ring.c); with -DJOIN find_record (daemon/group_partition.c) of a group
 *             that gates, run after cursor_attach gave it x
 *   P         ring_claim_multi, batches of 1-unit records (or a short commit) and single records, ring_commit
 *   Recover   ring_resolve and slot_clear: zeroes the interior commit words, stamps the padding, later clears the slot
 *
 * Checked: the reader never begins at anything but a record that is published, or a claim's first record, or tail; what
 * ring_copy_valid() passes is whole; in the end the reader has come to tail (it never waits at an offset where no record
 * begins).  JOIN: no record at or above x is skipped, committed before or after (I5).
 *
 * Abstracted: memory order (sequentially consistent, but for BYTES_FIRST); resolving is exact and its reads are one step
 * (claim.pml); the limit is exact: nobody laps an unfinished claim, nor x in JOIN; the 7/8 is CAP - 1 units.
 * Bounds: NP = 2 producers, NCL claims each (NCLX for the second), CAP units, claims of 1..2 units.
 * Negative switches: NO_SECOND_LOOK (stamp, slots), SLOTS_FIRST (slots, stamp), NO_SLOTS, NO_VALIDATE, VALIDATE_FIRST,
 *   BYTES_FIRST (tail moves after the first byte); JOIN: NO_CLAIM (stamps alone), LOWEST_OF_ALL (only the lowest claim of
 *   the ring is looked at, even below x), STAMPS_THEN_CLAIM, LATER_TAIL (stamps are searched beyond the tail that was
 *   loaded before the slots). */
#define NP 2
#ifndef NCL
#define NCL 2
#endif
#ifndef NCLX
#define NCLX NCL
#endif
#ifndef CAP
#define CAP 4
#endif
#define NONE 255

byte tail;
byte at[NP], end[NP];              /* slot: claimed offset + 1, 0 for none; end */
byte st[CAP], hlen[CAP], dat[CAP]; /* commit word (offset + 1), header length, payload (offset + 1 when right) */
bool alive[NP]=1;
byte gate=NONE;                    /* JOIN: where the group's cursor stands */
/* ghosts */
byte kind[CAP];                    /* 0 inside a record, 1 a published record begins, 2 an unfinished claim begins, 3 a
                                    * later record of an unfinished batch */
byte gs[NP], gl[NP];               /* unfinished claim */
byte pos; bool joined;

#define STAMPED(o) (st[(o)%CAP]==(o)+1)
#define K(o) kind[(o)%CAP]
#define FREE(p,x) (gl[p]==0 || (x)<=gs[p]+CAP)
#define ROOM(x) (FREE(0,x) && FREE(1,x) && (gate==NONE || (x)<=gate+CAP))
#define S(x) atomic { if :: x :: goto die fi }

proctype P(byte p) {
  byte n, t, l; bool bt;
next:
  atomic { if :: n<(p==0 -> NCL : NCLX) :: else -> goto finished fi;
    if :: l=1 :: l=2 fi; bt=0; if :: l==2 -> bt=1 :: skip fi };
again:
  S( ROOM(tail+l) -> t=tail; end[p]=t+l; at[p]=t+1 );
#ifdef BYTES_FIRST
  atomic { if :: tail==t && ROOM(t+l) -> dat[t%CAP]=t+1; st[t%CAP]=0 :: tail!=t -> at[p]=0; goto again fi };
#endif
  S( if :: tail==t && ROOM(t+l) -> tail=t+l; gs[p]=t; gl[p]=l; K(t)=2; if :: l==2 -> K(t+1)=(bt -> 3 : 0) :: else fi
        :: tail!=t -> at[p]=0; t=0; goto again fi );
  S( dat[t%CAP]=t+1; if :: l==2 -> dat[(t+1)%CAP]=t+2; st[(t+1)%CAP]=0 :: else fi; hlen[t%CAP]=(bt -> 1 : l) );
  if :: bt -> S( hlen[(t+1)%CAP]=1; st[(t+1)%CAP]=t+2 ) :: else fi;
  S( assert(gl[p]>0); st[t%CAP]=t+1; gl[p]=0; gs[p]=0; K(t)=1; if :: bt -> K(t+1)=1 :: else fi );
  S( at[p]=0; end[p]=0; n++; t=0; l=0; bt=0; goto next );
die: atomic { alive[p]=0 };
finished: atomic { n=0; t=0; l=0; bt=0 };
end_p: skip
}

proctype Recover() {
  byte p;
end_rec:
  do
  :: atomic { (!alive[0] && at[0]!=0) -> p=0 }; goto work
  :: atomic { (!alive[1] && at[1]!=0) -> p=1 }; goto work
  od;
work:
  if
  :: atomic { gl[p]!=0 -> if :: gl[p]==2 -> st[(gs[p]+1)%CAP]=0 :: else fi };   /* zero what stands inside */
     atomic { hlen[gs[p]%CAP]=gl[p]; st[gs[p]%CAP]=gs[p]+1; K(gs[p])=1;
              if :: gl[p]==2 -> K(gs[p]+1)=0 :: else fi; gl[p]=0; gs[p]=0 }      /* padding's stamp */
  :: gl[p]==0
  fi;
  atomic { at[p]=0; end[p]=0; p=0; goto end_rec }                               /* slot_clear */
}

#ifdef HEAD
#define GIVEN(x) ((gl[0]==0 || x<=gs[0]) && (gl[1]==0 || x<=gs[1]))
#else
#define GIVEN(x) ((gl[0]==0 || x<=gs[0] || x>=gs[0]+gl[0]) && (gl[1]==0 || x<=gs[1] || x>=gs[1]+gl[1]))
#endif
#ifdef LOWEST_OF_ALL
#define ABOVE(o) true
#else
#define ABOVE(o) ((o)>=x)
#endif
#define LEGIT(y) (tail>(y)+CAP || (y)==tail || K(y)==1 || K(y)==2)

proctype Reader() {
  byte T, y, i, w, e, x, d, m; bool in;
#ifdef JOIN
  /* cursor_attach gave x: not below head, and head is never above an unfinished claim; or an offset that was asked for,
   * which no unfinished claim straddles */
join:
  atomic {
    if :: x=(tail>CAP -> tail-CAP : 0) :: x=(tail>=CAP -> tail-CAP+1 : 0) :: tail>=1 -> x=tail-1 :: tail>=2 -> x=tail-2 fi;
    if :: GIVEN(x) -> gate=x :: else -> x=0; goto join fi };
  /* T, then the unstamped claims at or above x, then the stamps in [x, T) */
  atomic { T=tail; m=T; y=x };
#ifndef STAMPS_THEN_CLAIM
claims:
#ifndef NO_CLAIM
  atomic { w=at[i] };
  atomic { if :: w!=0 && w-1<T && T<=w-1+CAP && !STAMPED(w-1) && w-1<m && ABOVE(w-1) -> m=w-1 :: else fi;
           w=0; i++; if :: i<NP -> goto claims :: else -> i=0 fi };
#ifdef LOWEST_OF_ALL
  if :: m<x -> m=T :: else fi;
#endif
#endif
#endif
#ifdef LATER_TAIL
  atomic { d=(m<T -> 1 : 0); T=tail; if :: d==0 -> m=T :: else fi; d=0 };
#endif
scan:
  atomic { if :: y>=m -> y=m; goto found :: else fi; if :: !STAMPED(y) -> y++; goto scan :: else fi };
  /* inside an unfinished claim that began below x?  Not above: y < the lowest claim */
  goto found;
found:
#ifdef STAMPS_THEN_CLAIM
  m=y;
claims:
  atomic { w=at[i] };
  atomic { if :: w!=0 && w-1<T && !STAMPED(w-1) && w-1<m && w-1>=x -> m=w-1 :: else fi; w=0; i++;
           if :: i<NP -> goto claims :: else -> i=0; y=m fi };
#endif
  atomic { assert(y<=tail && LEGIT(y));
    i=x; do :: i<y -> assert(K(i)!=1 && K(i)!=2); i++ :: else -> break od; i=0;
    pos=y; joined=1; T=0; y=0; x=0; m=0 };
#else
  atomic { if :: tail>=1 -> pos=tail-1 :: tail>=2 -> pos=tail-2 :: pos=0 fi };    /* wherever it stood */
resync:
  atomic { T=tail; y=(T>CAP-1 -> T-(CAP-1) : 0); if :: pos>y -> y=pos :: else fi };
scan:
#ifndef NO_BOUND
  if :: y>=T -> goto found :: else fi;
#endif
#ifndef SLOTS_FIRST
  atomic { if :: !STAMPED(y) -> y++; goto scan :: else fi };
#endif
#ifndef NO_SLOTS
slots:
  atomic { w=at[i] };
  atomic { e=end[i]; if :: w!=0 && y>=w-1 && y<e :: else -> w=0; e=0; goto next_slot fi };
  atomic { if :: !STAMPED(w-1) -> i=0; w=0; e=0; y++; goto scan :: else -> w=0; e=0 fi };
next_slot:
  atomic { i++; if :: i<NP -> goto slots :: else -> i=0 fi };
#endif
#ifdef NO_BOUND
  atomic { T=tail; if :: y>=T -> y=T; goto found :: else fi };
#endif
#ifndef NO_SECOND_LOOK
  atomic { if :: !STAMPED(y) -> y++; goto scan :: else fi };
#endif
found:
  atomic { assert(LEGIT(y)); pos=y; joined=1; y=0; T=0 };
#endif

reading: end_reading:
  atomic { (STAMPED(pos) || tail>pos+CAP) };      /* sleeps for it */
#ifdef VALIDATE_FIRST
  atomic { T=(tail<=pos+CAP -> 1 : 0) };
#endif
  atomic { if :: STAMPED(pos) -> skip :: !STAMPED(pos) && tail<=pos+CAP -> goto reading
              :: !STAMPED(pos) && tail>pos+CAP -> T=0; goto lapped fi };
  atomic { e=hlen[pos%CAP]; if :: e>2 -> e=2 :: else fi };   /* bounded first */
  atomic { d=dat[pos%CAP] };
  if :: e==2 -> atomic { w=dat[(pos+1)%CAP] } :: else fi;
#ifndef VALIDATE_FIRST
  atomic { T=(tail<=pos+CAP -> 1 : 0) };
#endif
#ifdef NO_VALIDATE
  T=1;
#endif
  /* padding has no content: kind tells */
  atomic { if
    :: T==1 -> assert(e>0); if :: alive[0] && alive[1] -> assert(d==pos+1 && (e==1 || w==pos+2)) :: else fi;
       pos=pos+e; d=0; e=0; w=0; T=0; goto reading
    :: else -> d=0; e=0; w=0; T=0
    fi };
lapped:
#ifdef JOIN
  assert(false)
#else
  goto resync
#endif
}

proctype Mon() { end_mon: atomic { timeout -> assert(pos==tail && (joined || tail==0)) } }

init { atomic { run P(0); run P(1); run Recover(); run Reader(); run Mon() } }
