// The table's peers. Boost.Interprocess: a map in a managed shared memory segment under a mutex in it, as its manual
// teaches. LMDB: a file in memory that is never synchronised, where readers wait for nobody.
#include "heap_table.h"

#ifdef HAVE_BOOST_INTERPROCESS

#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/containers/map.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <optional>
#include <sys/statvfs.h>
#include <unistd.h>

namespace
{

namespace ipc = boost::interprocess;

class Boost
{
  public:
	static const char *ready()
	{
		struct statvfs shm; // beyond its size there is SIGBUS
		if (statvfs("/dev/shm", &shm) != 0) return "Boost.Interprocess: there is no /dev/shm";
		return shm.f_bavail * shm.f_frsize < bytes ? "Boost.Interprocess: /dev/shm has too little room" : nullptr;
	}
	bool build(uint64_t keys)
	{
		std::string name = "hugepool_bench_table_" + std::to_string(getpid());
		try {
			segment_.emplace(ipc::create_only, name.c_str(), bytes);
			ipc::shared_memory_object::remove(name.c_str()); // the mapping stays
			mutex_ = segment_->construct<ipc::interprocess_mutex>(ipc::anonymous_instance)();
			map_ = segment_->construct<Map>(ipc::anonymous_instance)(std::less<uint64_t>(),
			                                                         segment_->get_segment_manager());
			for (uint64_t i = 0; i < keys; i++) map_->emplace(table_key(i), table_value(table_key(i), 0));
		} catch (const ipc::interprocess_exception &) {
			return false;
		}
		return true;
	}
	bool open_reader()
	{
		// A forked process begins with empty page tables for shared memory.
		madvise(segment_->get_address(), segment_->get_size(), MADV_POPULATE_WRITE);
		return true;
	}
	bool lookup(uint64_t key, uint64_t *value)
	{
		ipc::scoped_lock<ipc::interprocess_mutex> lock(*mutex_);
		auto found = map_->find(key);
		if (found == map_->end()) return false;
		*value = found->second;
		return true;
	}
	bool open_writer()
	{
		return open_reader();
	}
	bool update(uint64_t key, uint64_t value)
	{
		ipc::scoped_lock<ipc::interprocess_mutex> lock(*mutex_);
		auto found = map_->find(key);
		if (found == map_->end()) return false;
		found->second = value;
		return true;
	}
	void close() {}

  private:
	using Pair = std::pair<const uint64_t, uint64_t>;
	using Map = ipc::map<uint64_t, uint64_t, std::less<uint64_t>,
	                     ipc::allocator<Pair, ipc::managed_shared_memory::segment_manager>>;
	static constexpr uint64_t bytes = 64 * MiB; // 46 are used

	std::optional<ipc::managed_shared_memory> segment_;
	ipc::interprocess_mutex *mutex_;
	Map *map_;
};

const bool boost_registered = register_table<Boost>("boost");

} // namespace
#else
namespace
{
const bool boost_registered = [] {
	register_missing(table_name("boost"), "Boost.Interprocess was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif

#ifdef HAVE_LMDB

#include <lmdb.h>

#include <cstdio>
#include <cstdlib>
#include <unistd.h>

namespace
{

// No process may use what another has opened, so each opens the file, in a folder: a link to memory that goes with the
// last of them, however they end.
class Lmdb
{
  public:
	static const char *ready()
	{
		return nullptr;
	}
	Lmdb() = default;
	Lmdb(const Lmdb &) = delete;
	Lmdb &operator=(const Lmdb &) = delete;
	~Lmdb()
	{
		if (file_ >= 0) ::close(file_);
		if (folder_.empty()) return;
		for (const char *file : {"/data.mdb", "/lock.mdb"}) std::remove((folder_ + file).c_str());
		rmdir(folder_.c_str());
	}

	bool build(uint64_t keys)
	{
		char folder[] = "/tmp/hugepool_bench_XXXXXX";
		if ((file_ = memfd_create("lmdb", 0)) < 0 || !mkdtemp(folder)) return false;
		folder_ = folder;
		std::string target = "/proc/self/fd/" + std::to_string(file_);
		if (symlink(target.c_str(), (folder_ + "/data.mdb").c_str()) != 0) return false;
		MDB_txn *txn;
		if (!open_environment() || mdb_txn_begin(env_, nullptr, 0, &txn) != 0) return false;
		bool ok = mdb_dbi_open(txn, nullptr, MDB_INTEGERKEY, &table_) == 0;
		for (uint64_t i = 0; ok && i < keys; i++) ok = put(txn, table_key(i), table_value(table_key(i), 0));
		ok = ok && mdb_txn_commit(txn) == 0;
		mdb_env_close(env_);
		return ok;
	}
	bool open_reader()
	{
		if (!open_environment() || mdb_txn_begin(env_, nullptr, MDB_RDONLY, &reader_) != 0) return false;
		bool ok = mdb_dbi_open(reader_, nullptr, MDB_INTEGERKEY, &table_) == 0;
		mdb_txn_reset(reader_);
		return ok;
	}
	bool lookup(uint64_t key, uint64_t *value)
	{
		if (mdb_txn_renew(reader_) != 0) return false;
		MDB_val name = {sizeof key, &key}, found;
		bool ok = mdb_get(reader_, table_, &name, &found) == 0 && found.mv_size == sizeof *value;
		if (ok) std::memcpy(value, found.mv_data, sizeof *value);
		mdb_txn_reset(reader_);
		return ok;
	}
	bool open_writer()
	{
		MDB_txn *txn;
		if (!open_environment() || mdb_txn_begin(env_, nullptr, 0, &txn) != 0) return false;
		return mdb_dbi_open(txn, nullptr, MDB_INTEGERKEY, &table_) == 0 && mdb_txn_commit(txn) == 0;
	}
	bool update(uint64_t key, uint64_t value)
	{
		MDB_txn *txn;
		if (mdb_txn_begin(env_, nullptr, 0, &txn) != 0) return false;
		if (put(txn, key, value)) return mdb_txn_commit(txn) == 0;
		mdb_txn_abort(txn);
		return false;
	}
	void close()
	{
		if (reader_) mdb_txn_abort(reader_);
		mdb_env_close(env_);
	}

  private:
	bool open_environment()
	{
		return mdb_env_create(&env_) == 0 && mdb_env_set_mapsize(env_, 1 * GiB) == 0 &&
		       mdb_env_open(env_, folder_.c_str(), MDB_NOSYNC | MDB_NOMETASYNC, 0600) == 0;
	}
	bool put(MDB_txn *txn, uint64_t key, uint64_t value)
	{
		MDB_val name = {sizeof key, &key}, data = {sizeof value, &value};
		return mdb_put(txn, table_, &name, &data, 0) == 0;
	}

	std::string folder_;
	int file_ = -1;
	MDB_env *env_ = nullptr;
	MDB_txn *reader_ = nullptr;
	MDB_dbi table_;
};

const bool lmdb_registered = register_table<Lmdb>("lmdb");

} // namespace
#else
namespace
{
const bool lmdb_registered = [] {
	register_missing(table_name("lmdb"), "LMDB was missing when this was built (tools/deps bench)");
	return true;
}();
} // namespace
#endif
